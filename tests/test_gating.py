import json
import re
import tomllib
from pathlib import Path

import pytest

from mobilekd.config import find
from mobilekd.errors import ConfigError
from mobilekd.gating import Outcome, limits_of, with_budgets
from mobilekd.profile import Budget


def test_a_budget_of_the_command_line_replaces_the_profiles():
    both = with_budgets(Budget(top1_drop=0.03, model_bytes=5), ["top1_drop=0.01"])
    assert (both.top1_drop, both.model_bytes) == (0.01, 5)


@pytest.mark.parametrize("text", ["licences=MIT, Apache-2.0", 'licences=["MIT", "Apache-2.0"]'])
def test_licences_are_a_list_of_toml_or_stand_between_commas(text: str):
    assert with_budgets(Budget(), [text]).licences == ("MIT", "Apache-2.0")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("top1_drop", "is not KEY=VALUE"),
        ("=1", "is not KEY=VALUE"),
        ("top1_drop=", r'budget.top1_drop is "": input should be a valid number'),
        ("top1_drop=nan", "a finite number is needed"),
        ("top1_drop=inf", "a finite number is needed"),
        ("top1_drop=-0.1", "greater than or equal to 0"),
        ("top1_drop=1.5", "less than or equal to 1"),
        ("top1_drop=1 %", "a share is written as a fraction"),
        ("top1_drop='1%'", "a share is written as a fraction"),
        ("model_bytes=8e6", "input should be a valid integer"),
        ("model_bytes=8 MB", "input should be a valid integer"),
        ("int8_beats_fp32=1", "input should be a valid boolean"),
        ("licences=,", "at least 1 character"),
        ("licences=[]", "at least 1 item"),
        ("a.b=1", "is not an option"),
    ],
)
def test_a_wrong_budget_is_quoted_as_it_was_typed(text: str, told: str):
    with pytest.raises(ConfigError, match=told) as refusal:
        with_budgets(Budget(), [text])
    assert f"--budget {text}" in refusal.value.message


def test_a_percent_sign_is_answered_with_the_fraction():
    with pytest.raises(ConfigError) as refusal:
        with_budgets(Budget(), ["agreement=99.5%"])
    assert refusal.value.hint == "--budget agreement=0.995"


def test_an_unknown_budget_is_answered_with_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"budget.top1drop is not an option") as refusal:
        with_budgets(Budget(), ["top1drop=0.1"])
    assert refusal.value.hint.startswith("did you mean 'top1_drop'? known: p50_ms, ")


def test_a_last_release_that_no_budget_compares_with_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="compares nothing"):
        limits_of(Budget(top1_drop=0.1), None, tmp_path)


@pytest.mark.parametrize(("name", "says"), [("", "a folder; a file is needed"), ("no/gates.xml", "there is no folder")])
def test_a_file_that_can_not_be_written_is_told_before_any_work(tmp_path: Path, name: str, says: str):
    with pytest.raises(ConfigError, match=f"--junit .*: {says}"):
        Outcome(junit=tmp_path / name).check()


def test_a_folder_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(ConfigError) as told:
        Outcome(markdown=tmp_path / "a b" / "gates.md").check()
    assert told.value.hint == f"mkdir -p '{tmp_path / 'a b'}'"


@pytest.mark.parametrize("name", ["bundle.zip", "folder/manifest.json"])
def test_a_file_that_would_overwrite_the_bundle_is_refused(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="would overwrite"):
        Outcome(junit=tmp_path / name).check(tmp_path / "bundle.zip", tmp_path / "folder")


def test_one_file_for_both_forms_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--markdown .* would overwrite"):
        Outcome(junit=tmp_path / "gates", markdown=tmp_path / "gates").check()


def test_budgets_that_older_profiles_lack_leave_no_trace_in_a_cache_key():
    assert Budget(model_bytes=1).model_dump(mode="json") == {"p50_ms": None, "model_bytes": 1, "top1_drop": None}


def test_the_shipped_profile_shows_every_budget_with_a_value_that_reads():
    text = find("devices", "android-arm64").read_text(encoding="utf-8")
    shown = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text[text.index("[budget]") :]))["budget"]
    assert set(shown) == set(Budget.model_fields)
    assert Budget.model_validate_json(json.dumps(shown)).int8_beats_fp32 is True


def test_a_budget_may_be_named_as_messages_name_it():
    assert with_budgets(Budget(), ["budget.top1_drop=0.25"]).top1_drop == 0.25
