"""Whether a teacher helped: the student against the same network trained alone, image by image."""

import json
import math
from pathlib import Path
from typing import Any

from mobilekd.training.diagnosis import FILE, Diagnosis, read_diagnoses


def with_alone(student: Path, alone: Path | None) -> list[Diagnosis]:
    """Return what the stage of the student found, and whether the student trained alone, if there is one, is better.

    Args:
        student: Folder of a Student.
        alone: Folder of a Baseline.
    """
    found = read_diagnoses(student / FILE)
    worse = against_alone(student, alone) if alone else None
    return [*found, worse] if worse else found


def against_alone(student: Path, alone: Path) -> Diagnosis | None:
    """Return the finding that distillation did harm; None where it helped, or where chance explains the difference.

    Both answered the same test images. A difference of their top-1 comes from the images on which they disagree: of n
    images d, its standard error is at most sqrt(d) / n.
    """
    import numpy as np

    tops = [_read(folder / "metrics.json")["top1_test"] for folder in (student, alone)]
    ours, theirs = (np.load(folder / "test_logits.npy").argmax(axis=1) for folder in (student, alone))
    error = math.sqrt(int((ours != theirs).sum())) / len(ours)
    if tops[1] - tops[0] <= 2 * error:
        return None
    return Diagnosis(
        "the student is worse than the same network trained alone",
        f"test top-1 {tops[0]:.2%} with the teacher, {tops[1]:.2%} without: {100 * (tops[1] - tops[0]):.2f} points,"
        f" more than the {200 * error:.2f} that are two standard errors for {len(ours)} images",
        _advice(_read(student / "network.json")),
    )


def _advice(facts: dict[str, Any]) -> str:
    features = facts.get("feature_methods", [])
    weights = " and ".join(f"of {name}" for name in features)
    tried = [f"a tenth of the weight {weights} (distill.method_options)"] if features else []
    tried += ["a lower soft_weight (--alpha)"] if set(facts.get("method", [])) - set(features) else []
    tried += ["--method kd"] if facts.get("method") != ["kd"] else []
    return f"try {', '.join(tried)}, or a teacher nearer in size to the student"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
