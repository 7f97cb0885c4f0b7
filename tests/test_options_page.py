"""docs/training-options.md has every option of the stages that train, as its field has it."""

import pytest

from mobilekd.plugins import STAGES
from tests.options_page import PAGE, TABLES, rows, written

ROWS = [row for one in TABLES.values() for row in rows(*one)]
TRAINING = ("teacher", "alone", "assistant", "distill", "quantize")


def test_the_page_of_training_options_is_that_of_the_fields() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "python -m tests.options_page"


@pytest.mark.parametrize("stage", TRAINING)
def test_every_option_of_a_training_stage_has_a_row(stage: str) -> None:
    assert set(STAGES.load(stage).model_fields) <= {name for name, *_ in ROWS}


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, *_, words in ROWS])
def test_every_option_is_described(name: str, words: str) -> None:
    assert words, name


def test_a_row_has_default_range_and_words() -> None:
    found = {name: tuple(cells) for name, *cells in ROWS}
    assert found["ema"][:2] == ("`0.0`", "number, ≥ 0, < 1")
    assert found["schedule"][:2] == ('`"cosine"`', '`"cosine"`, `"step"`, `"onecycle"`')
    assert found["network"][:2] == ("none: it has to be given", "text")
    assert found["soft_weight"][:2] == ("not set", "number, ≥ 0, ≤ 1")
