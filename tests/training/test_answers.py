"""What is read of a teacher, remembered for each image and view."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobilekd.errors import StageError
from mobilekd.method import Batch, Outputs, Sizes
from mobilekd.plugins import METHODS
from mobilekd.training.answers import Layout
from mobilekd.training.objective import Objective, TeacherNetwork
from mobilekd.training.soft_labels import SoftLabels
from mobilekd.training.strategy import Part, Strategy
from tests.training.nets import narrow, wide

FEATURE_METHODS = [name for name in METHODS.names() if METHODS.load(name).uses_features()]
SIZE = st.integers(1, 4)
MAPS = st.lists(st.tuples(SIZE, SIZE, SIZE), max_size=3)


class Counted(nn.Module):
    """A network that counts the images it saw, but for those that it was built with."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.images = wide(), 0
        self.layer1, self.layer2, self.layer3 = self.inner.layer1, self.inner.layer2, self.inner.layer3
        self.linear = self.inner.linear

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.inner(images)


def objective(name: str, teacher: nn.Module, folder: Path | None) -> Objective:
    torch.manual_seed(1)
    kept = None if folder is None else lambda width, _: SoftLabels(folder, 20, width, title="features")
    strategy = Strategy(1.0, (Part(name, METHODS.load(name)()),))
    taught = TeacherNetwork(teacher, features=kept)
    return Objective(narrow(), (taught,), strategy, example=images(2), sizes=Sizes(20, 3), seed=0)


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def batch(view: int = 0) -> Batch:
    labels = torch.tensor([0, 1, 2, 0])
    return Batch(images(4), labels, nn.functional.one_hot(labels, 3).float(), torch.tensor([3, 9, 1, 0]), view, 0.5)


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return wide().eval()


@given(classes=SIZE, maps=MAPS, embedding=st.integers(0, 5), images=st.integers(1, 3))
def test_what_is_packed_comes_back(classes, maps, embedding, images) -> None:
    source = torch.Generator().manual_seed(0)
    stages = tuple(torch.randn(images, *shape, generator=source) for shape in maps)
    embedded = torch.randn(images, embedding, generator=source) if embedding else None
    outputs = Outputs(torch.randn(images, classes, generator=source), stages, embedded)
    layout = Layout.of(outputs)
    back = layout.unpacked(layout.packed(outputs))
    assert torch.equal(back.logits, outputs.logits)
    assert [one.tolist() for one in back.stages] == [one.tolist() for one in stages]
    assert (back.embedding is None and not embedding) or torch.equal(back.embedded(), embedded)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_remembered_features_give_the_terms_of_a_teacher_that_runs_to_the_precision_of_fp16(name, tmp_path) -> None:
    running = objective(name, teacher(), None)(batch())
    remembered = objective(name, teacher(), tmp_path)(batch())
    assert remembered.keys() == running.keys()
    torch.testing.assert_close(tuple(remembered.values()), tuple(running.values()), rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_a_warm_cache_gives_the_very_terms_of_a_cold_one(name, tmp_path) -> None:
    cold = objective(name, teacher(), tmp_path)(batch())
    warm = objective(name, teacher(), tmp_path)(batch())
    assert warm == cold


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_a_teacher_of_a_feature_method_runs_once_for_each_image_and_view(name, tmp_path) -> None:
    counted = Counted().eval()
    loss = objective(name, counted, tmp_path)
    loss(batch(view=0)), loss(batch(view=1))
    before = counted.images
    loss(batch(view=0)), loss(batch(view=1))
    assert counted.images == before


def test_features_that_halves_can_not_hold_are_refused(tmp_path: Path) -> None:
    loud = teacher()
    with torch.no_grad():
        loud.layer1[1].weight.mul_(1e6)
    with pytest.raises(StageError, match=r"what is read of the teacher reaches .* halves, which end at 65,504"):
        objective("fitnets", loud, tmp_path)(batch())
