from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobilekd.training.soft_labels import SoftLabels, folder_name

LOGITS = torch.tensor([[1.25, -2.0, 0.3333333], [4.0, 5.0, 6.0], [0.0, 0.0, 0.0], [1e6, -1e6, 1.0]])


class Teacher:
    """Counts how often it is asked."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows
        self.runs = 0

    def __call__(self, places: Tensor) -> Tensor:
        self.runs += 1
        return LOGITS[self.rows][places]


def test_the_teacher_runs_once_for_an_image_and_a_view(tmp_path: Path) -> None:
    labels, teacher = SoftLabels(tmp_path, 4, 3), Teacher([0, 2])
    first = labels.answers(torch.tensor([0, 2]), 1, teacher)
    again = labels.answers(torch.tensor([0, 2]), 1, teacher)
    assert teacher.runs == 1
    assert torch.equal(first, again)


def test_answers_are_the_logits_to_the_precision_of_fp16(tmp_path: Path) -> None:
    answers = SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0, 1]), 0, Teacher([0, 1]))
    torch.testing.assert_close(answers, LOGITS[:2], rtol=2**-11, atol=0)


def test_answers_are_there_for_another_process(tmp_path: Path) -> None:
    SoftLabels(tmp_path, 4, 3).answers(torch.tensor([1, 0]), 5, Teacher([1, 0]))
    teacher = Teacher([0, 1])
    answers = SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0, 1]), 5, teacher)
    assert teacher.runs == 0
    assert answers[1].tolist() == [4.0, 5.0, 6.0]


def test_another_view_asks_again(tmp_path: Path) -> None:
    labels, teacher = SoftLabels(tmp_path, 4, 3), Teacher([0])
    labels.answers(torch.tensor([0]), 0, teacher)
    labels.answers(torch.tensor([0]), 1, teacher)
    assert teacher.runs == 2


def test_the_teacher_runs_for_the_missing_images_of_a_batch_only(tmp_path: Path) -> None:
    labels, teacher = SoftLabels(tmp_path, 4, 3), Teacher([0, 1])
    labels.answers(torch.tensor([0]), 0, Teacher([0]))
    answers = labels.answers(torch.tensor([0, 1]), 0, teacher)
    assert (labels.served.asked, labels.served.cached) == (2, 1)
    assert answers[1].tolist() == [4.0, 5.0, 6.0]


def test_logits_beyond_fp16_stay_finite(tmp_path: Path) -> None:
    answers = SoftLabels(tmp_path, 4, 3).answers(torch.tensor([3]), 0, Teacher([3]))
    assert torch.isfinite(answers).all()


def test_a_cut_file_is_a_miss(tmp_path: Path) -> None:
    SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0]), 0, Teacher([0]))
    (tmp_path / "view-0000.npy").write_bytes(b"\x93NUMPY")
    teacher = Teacher([0])
    SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0]), 0, teacher)
    assert teacher.runs == 1


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), top=st.integers(1, 9))
def test_top_keeps_the_largest_probabilities_and_the_rest_in_sum(
    tmp_path_factory: pytest.TempPathFactory, seed: int, top: int
) -> None:
    logits = torch.randn(2, 10, generator=torch.Generator().manual_seed(seed)) * 3
    labels = SoftLabels(tmp_path_factory.mktemp("soft"), 2, 10, top=top)
    answers = labels.answers(torch.tensor([0, 1]), 0, lambda places: logits[places])
    places = logits.topk(top).indices
    kept, wanted = answers.softmax(1).gather(1, places), logits.softmax(1).gather(1, places)
    torch.testing.assert_close(kept, wanted, rtol=0.02, atol=0)


def test_top_states_its_bytes() -> None:
    assert SoftLabels(Path("unused"), 1, 1000, top=8).bytes_per_image == 34


@pytest.mark.parametrize("changed", ["teacher", "data", "augmentation", "seed"])
def test_a_cache_is_of_one_teacher_data_and_augmentation(changed: str) -> None:
    facts = {"teacher": "a", "data": "b", "augmentation": "c", "seed": "0"}
    assert folder_name(facts) != folder_name({**facts, changed: "other"})


def test_line_says_what_was_cached(tmp_path: Path) -> None:
    labels = SoftLabels(tmp_path, 4, 3)
    labels.answers(torch.tensor([0]), 0, Teacher([0]))
    labels.answers(torch.tensor([0]), 0, Teacher([0]))
    assert "1 of 2 answers of the teacher were cached (50.0%), 6 bytes" in labels.told()


def test_a_half_written_row_is_asked_again(tmp_path: Path) -> None:
    SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0]), 0, Teacher([0]))
    stored = np.load(tmp_path / "view-0000.npy", mmap_mode="r+")
    stored[0, 2] = np.nan
    stored.flush()
    teacher = Teacher([0])
    SoftLabels(tmp_path, 4, 3).answers(torch.tensor([0]), 0, teacher)
    assert teacher.runs == 1
