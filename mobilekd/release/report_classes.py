"""The report on single classes: where int8 lost more than the mean tells."""

import math

import numpy as np
from numpy.typing import NDArray

from mobilekd.release.answers import STUDENT, TEACHER, load_answers, per_class_top1
from mobilekd.release.evidence import Evidence
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_format import count, line, percent, points, table

_SHOWN = 20

Shares = NDArray[np.float64]


def class_table(evidence: Evidence) -> Html:
    """Return top-1 of each class, those first that a shipped model lost most of; nothing without answers.

    With more than _SHOWN classes the others are left out, and the text says so.
    """
    if evidence.answers_path is None:
        return NOTHING
    classes = evidence.dataset.classes
    answers = load_answers(evidence.answers_path, classes, [model.name for model in evidence.shipped])
    known = {**answers.networks, **answers.deployed}
    shares = {name: per_class_top1(answers.labels, given, len(classes)) for name, given in known.items()}
    deployed = [shares[name] for name in answers.deployed]
    if STUDENT not in shares or not deployed:
        return NOTHING
    loss = shares[STUDENT] - np.min(deployed, axis=0)
    images = np.bincount(answers.labels, minlength=len(classes))
    order = [int(one) for one in np.argsort(-loss, kind="stable") if images[one]]
    columns = [name for name in (TEACHER, STUDENT, *answers.deployed) if name in shares]
    heads = (("", "Class"), ("n", "Images"), *(("n", _title(name)) for name in columns), ("n", "Worst change"))
    rows = (
        line(
            ("name", classes[one]),
            ("n", count(int(images[one]))),
            *(("n", _share(shares[name], one)) for name in columns),
            ("n", points(-float(loss[one]))),
        )
        for one in order[:_SHOWN]
    )
    return join((tag("p", {"class": "lede"}, _lede(len(order), len(classes))), table(heads, rows)))


def _lede(known: int, classes: int) -> str:
    shown = f"the {_SHOWN} of {known:,} classes" if known > _SHOWN else "the classes"
    silent = f" {classes - known:,} classes have no test image." if known < classes else ""
    return (
        f"Top-1 by class under each model's default kernels: {shown} that a model lost most of, against the float "
        f"student. A class has few images, so one answer moves it far.{silent}"
    )


def _title(name: str) -> str:
    return name.capitalize() if name in {TEACHER, STUDENT} else name


def _share(shares: Shares, one: int) -> str:
    value = float(shares[one])
    return percent(None if math.isnan(value) else value)
