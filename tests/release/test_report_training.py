"""The report's section on training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd.release.evidence import Evidence, read_evidence
from mobilekd.release.report_training import line_plot, terms_plot, training_parts
from mobilekd.training.diagnosis import Diagnosis, write_diagnoses

from .workshop import Workshop


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    found = Workshop(tmp_path).evidence()
    terms = tuple(
        one.model_copy(update={"terms": {"hard": 0.2, "soft": 0.5 + one.epoch}}) for one in found.student.history
    )
    return replace(found, student=replace(found.student, history=terms), alone=replace(found.student, role="Alone"))


def test_the_student_is_drawn_against_its_teacher_and_itself_alone(evidence: Evidence) -> None:
    page = "".join(training_parts(evidence))
    assert "Top-1 on validation, % over epochs" in page
    assert all(f"<title>{name}</title>" in page for name in ("teacher", "distilled", "alone"))


def test_every_term_of_the_loss_is_a_line_with_its_last_value(evidence: Evidence) -> None:
    plot = terms_plot(evidence.student)
    assert plot.count('class="curve curve-') == 2
    assert "soft <b>30.5</b>" in plot


def test_history_without_terms_draws_no_plot_of_terms(tmp_path: Path) -> None:
    student = Workshop(tmp_path).evidence().student
    bare = tuple(one.model_copy(update={"terms": {}}) for one in student.history)
    assert terms_plot(replace(student, history=bare)) == ""


def test_diagnoses_stand_in_the_page_escaped(evidence: Evidence) -> None:
    page = "".join(training_parts(replace(evidence, diagnoses=(Diagnosis("a < b", "10 > 1", "wait"),))))
    assert "<b>a &lt; b</b>: 10 &gt; 1. " in page


def test_a_plot_without_a_line_is_nothing() -> None:
    assert line_plot("empty", [], is_log=True) == ""


def test_evidence_reads_terms_diagnoses_and_the_student_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.release.workshop as files

    def read(profile, sources) -> Evidence:
        record = [{"epoch": 1.0, "loss": 3.0, "lr": 0.1, "hard": 1.0, "soft": 2.0, "top1": 0.5}]
        (sources.student / "history.json").write_text(json.dumps(record))
        write_diagnoses(sources.student / "diagnoses.json", [Diagnosis("cold", "T = 1", "warm it")])
        return read_evidence(profile, replace(sources, baseline=sources.teacher))

    monkeypatch.setattr(files, "read_evidence", read)
    evidence = Workshop(tmp_path).evidence()
    assert evidence.student.history[0].terms == {"hard": 1.0, "soft": 2.0}
    assert [one.cause for one in evidence.diagnoses] == [
        "cold",
        "the student is worse than the same network trained alone",
    ]


def test_the_written_page_has_the_section(measured_page: str) -> None:
    assert "Top-1 on validation, % over epochs" in measured_page


@pytest.fixture
def measured_page(built: Path) -> str:
    return (built / "bundle/measurements/report.html").read_text()
