from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from mobilekd.errors import ConfigError
from mobilekd.release.gate_files import junit, markdown, write_text
from mobilekd.release.gates import Gate


def _gate(budget: str, verdict: str, note: str = "") -> Gate:
    return Gate(budget, "mnn-int8", verdict, 2.0, 1.0, "2 ms", "1 ms", "median latency 2 ms", note, "do this")  # type: ignore[arg-type]


GATES = (_gate("p50_ms", "over"), _gate("top1_drop", "holds"), _gate("agreement", "not measured", "no phone"))
NASTY = _gate("class_top1_drop", "over", "class 'a\"<&>|\x07\x1b]]>'")


def _suite(text: str) -> Xml.Element:
    suite = Xml.fromstring(text).find("testsuite")
    assert suite is not None
    return suite


def test_a_test_case_stands_for_each_gate():
    cases = _suite(junit("x.zip", GATES, strict=False)).findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [["failure"], ["system-out"], ["skipped"]]
    assert [case.get("name") for case in cases] == ["p50_ms mnn-int8", "top1_drop mnn-int8", "agreement mnn-int8"]


@pytest.mark.parametrize(("strict", "counts"), [(False, ("3", "1", "1", "0")), (True, ("3", "2", "0", "0"))])
def test_counts_stand_on_the_suite(strict: bool, counts: tuple[str, ...]):  # noqa: FBT001
    suite = _suite(junit("x.zip", GATES, strict=strict))
    assert tuple(suite.get(name) for name in ("tests", "failures", "skipped", "errors")) == counts


def test_a_failure_tells_what_to_do():
    failure = _suite(junit("x.zip", GATES, strict=False)).find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "mnn-int8: median latency 2 ms, budget 1 ms (budget.p50_ms): do this"


def test_signs_of_xml_and_of_terminals_come_through_as_text():
    failure = _suite(junit('a"<&>\x00.zip', [NASTY], strict=False)).find("testcase/failure")
    assert failure is not None
    assert "class 'a\"<&>|��]]>'" in str(failure.text)


def test_markdown_is_a_table_with_a_line_a_gate():
    lines = markdown("x.zip", GATES).splitlines()
    assert lines[0] == "### Budgets of x.zip"
    assert lines[2] == "1 hold, 1 over, 1 not measured"
    assert lines[6] == "| p50\\_ms | mnn-int8 | 2 ms | 1 ms | ❌ over |  | do this |"


def test_a_cell_of_markdown_stays_in_its_cell():
    row = markdown("x", [NASTY]).splitlines()[6]
    assert row.replace("\\|", "").count("|") == 8
    assert "<" not in row.replace("\\<", "")


def test_markdown_without_gates_says_that_no_budget_is_set():
    assert "No budget is set." in markdown("x", ())


def test_a_written_file_leaves_nothing_beside_it(tmp_path: Path):
    write_text(tmp_path / "gates.xml", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["gates.xml"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be written"):
        write_text(tmp_path / "no/gates.xml", "new")
