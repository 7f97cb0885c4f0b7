import copy
import math

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn.functional import normalize

from mobilekd.methods._contrast import Contrast, drawn
from mobilekd.methods.crd import Crd
from tests.methods.examples import SIZES, batch, embedded, outputs

METHOD = Crd(width=6, negatives=16)


def contrast(images: int = 20, width: int = 6, *, heads: bool = True, negatives: int = 16) -> Contrast:
    torch.manual_seed(3)
    made = Contrast(
        student_width=5,
        teacher_width=7,
        images=images,
        width=width,
        temperature=0.07,
        negatives=negatives,
        momentum=0.5,
    )
    made.student_head = made.student_head if heads else nn.Identity()
    made.teacher_head = made.teacher_head if heads else nn.Identity()
    return made


def step(adapters: Contrast, *, rows: list[int] | None = None, view: int = 0, seed: int = 1) -> Tensor:
    rows = rows or [0, 1, 2, 3]
    student, teacher = outputs(seed).embedded(), outputs(seed + 1, width=7).embedded().detach()
    return adapters(student, teacher, tensor(rows), tensor([row % 3 for row in rows]), view)


def test_the_loss_matches_hand_worked_value() -> None:
    adapters = contrast(width=2, heads=False, negatives=4)
    one = tensor([[1.0, 0.0]])
    adapters.student_bank[:] = adapters.teacher_bank[:] = one
    # All embeddings are one: each pair is as likely as noise, 1 / (1 + 4), on both sides, for 1 positive, 4 negatives.
    assert adapters(one, one, tensor([0]), tensor([0]), 0).item() == pytest.approx(
        2 * (math.log(5) + 4 * math.log(5 / 4)), rel=1e-5
    )


def test_student_and_teacher_that_agree_lose_less_than_those_that_do_not() -> None:
    adapters = contrast(width=4, heads=False)
    places = torch.eye(4)
    adapters.student_bank[:4] = adapters.teacher_bank[:4] = places
    adapters.eval()
    rows, labels = torch.arange(4), tensor([0, 1, 2, 3])
    alike, apart = (adapters(student, places, rows, labels, 0) for student in (places, places.roll(1, 0)))
    assert alike.item() < apart.item()


def test_a_bank_moves_half_way_and_stays_on_the_sphere() -> None:
    adapters = contrast()
    before = adapters.student_bank.clone()
    place = normalize(adapters.student_head(outputs(1).embedded()), dim=1).detach()
    step(adapters)
    torch.testing.assert_close(adapters.student_bank[:4], normalize(0.5 * before[:4] + 0.5 * place, dim=1))


def test_images_outside_the_batch_keep_their_places() -> None:
    adapters = contrast()
    before = adapters.teacher_bank.clone()
    step(adapters)
    assert torch.equal(adapters.teacher_bank[4:], before[4:])


def test_banks_need_no_gradient() -> None:
    adapters = contrast()
    step(adapters).backward()
    assert not any(buffer.requires_grad for buffer in adapters.buffers())


def test_nothing_moves_in_evaluation() -> None:
    adapters = contrast().eval()
    before = copy.deepcopy(adapters.state_dict())
    step(adapters)
    torch.testing.assert_close(adapters.state_dict(), before, rtol=0.0, atol=0.0, equal_nan=True)


def test_constants_come_from_the_first_batch_and_stay() -> None:
    adapters = contrast()
    step(adapters)
    first = adapters.log_constants.clone()
    step(adapters, rows=[4, 5, 6, 7], seed=5)
    assert first.isfinite().all()
    assert torch.equal(adapters.log_constants, first)


def test_images_of_the_same_class_are_no_negatives() -> None:
    adapters = contrast(images=8).eval()
    adapters.labels[:] = torch.arange(8) % 3
    adapters.log_constants[:] = 0.0
    before = step(adapters, rows=[0, 3, 0, 3])
    adapters.teacher_bank[6], adapters.student_bank[6] = -adapters.teacher_bank[6], -adapters.student_bank[6]
    assert step(adapters, rows=[0, 3, 0, 3]).item() == before.item()


def test_a_resumed_run_goes_on_as_it_would_have() -> None:
    straight = contrast()
    step(straight)
    resumed = contrast()
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    later = [step(each, rows=[2, 3, 4, 5], view=1, seed=7).item() for each in (straight, resumed)]
    assert later[0] == later[1]


def test_negatives_are_drawn_again_for_the_same_rows_and_view() -> None:
    torch.manual_seed(0)
    first = drawn(tensor([3, 1]), view=2, count=50, images=1000)
    torch.manual_seed(1)
    assert torch.equal(drawn(tensor([3, 1]), view=2, count=50, images=1000), first)


@pytest.mark.parametrize(("rows", "view"), [([3, 1], 3), ([3, 2], 2), ([1, 3], 2)])
def test_other_rows_or_another_view_draw_other_negatives(rows: list[int], view: int) -> None:
    first = drawn(tensor([3, 1]), view=2, count=50, images=1000)
    assert not torch.equal(drawn(tensor(rows), view=view, count=50, images=1000), first)


def test_drawing_leaves_the_random_state_of_the_run_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    drawn(tensor([3, 1]), view=2, count=50, images=1000)
    assert torch.equal(torch.rand(1), wanted)


def test_training_lowers_the_loss_of_a_batch() -> None:
    torch.manual_seed(0)
    student, teacher = embedded(outputs(1).embedded().detach()), embedded(outputs(2, width=7).embedded())
    adapters = METHOD.adapters(student, teacher, SIZES)
    optimizer = torch.optim.SGD(adapters.parameters(), lr=0.1)

    def trained() -> float:
        optimizer.zero_grad()
        loss = METHOD.terms(student, teacher, batch(), adapters)["contrast"]
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [trained() for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
