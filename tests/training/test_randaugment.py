import numpy as np
import pytest
import torch
from torch import Tensor

from mobilekd.training import randaugment
from mobilekd.training.randaugment import OPERATIONS

COLOURS = ["brightness", "saturation", "contrast", "posterize", "solarize", "autocontrast"]


def pixels() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(40, 200, (2, 6, 6, 3), dtype=np.uint8))


def coloured(name: str, sign: int, magnitude: int, before: Tensor | None = None) -> Tensor:
    images = pixels() if before is None else before
    chosen = torch.full((len(images), 1), OPERATIONS.index(name))
    return randaugment.recolour(images.clone(), chosen, torch.full_like(chosen, sign), magnitude)


def sources(name: str, sign: int, magnitude: int) -> tuple[Tensor, Tensor]:
    chosen = np.array([[OPERATIONS.index(name)]])
    matrices = randaugment.geometry(chosen, np.full_like(chosen, sign), magnitude, (6, 6))
    return randaugment.moved(torch.from_numpy(matrices), (6, 6))


@pytest.mark.parametrize("name", ["identity", "brightness", "saturation", "contrast", "posterize"])
def test_an_operation_of_magnitude_zero_changes_no_pixel(name: str) -> None:
    assert torch.equal(coloured(name, 1, 0), pixels())


@pytest.mark.parametrize("name", [one for one in OPERATIONS if one not in COLOURS])
def test_a_movement_of_magnitude_zero_takes_every_pixel_from_its_place(name: str) -> None:
    row, column = sources(name, 1, 0)
    assert torch.equal(row[0] * 6 + column[0], torch.arange(36).view(6, 6))


@pytest.mark.parametrize("name", OPERATIONS[1:6])
def test_a_movement_moves_pixels(name: str) -> None:
    row, column = sources(name, 1, 30)
    assert not torch.equal(row[0] * 6 + column[0], torch.arange(36).view(6, 6))


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_operation_changes_pixels(name: str) -> None:
    assert not torch.equal(coloured(name, -1, 15), pixels())


@pytest.mark.parametrize("name", COLOURS)
def test_movements_ignore_operations_of_colour(name: str) -> None:
    row, column = sources(name, 1, 30)
    assert torch.equal(row[0] * 6 + column[0], torch.arange(36).view(6, 6))


@pytest.mark.parametrize(
    ("name", "sign", "magnitude", "expected"),
    [
        ("brightness", -1, 10, 70),  # 100 * (1 - 0.9 / 3)
        ("brightness", 1, 30, 190),
        ("posterize", 1, 30, 96),  # 0110_0100 with its lower 4 bits dropped
        ("solarize", 1, 30, 155),
        ("solarize", 1, 10, 100),  # below the threshold of 170
        ("autocontrast", 1, 9, 100),  # one value only
    ],
)
def test_an_operation_turns_a_grey_of_100_into_its_known_value(name, sign, magnitude, expected) -> None:
    grey = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    assert coloured(name, sign, magnitude, grey).unique().tolist() == [expected]


@pytest.mark.parametrize("name", ["saturation", "contrast"])
def test_grey_stays_when_only_saturation_or_contrast_changes(name: str) -> None:
    grey = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    assert torch.equal(coloured(name, 1, 30, grey), grey)


def test_autocontrast_uses_the_whole_range() -> None:
    stretched = coloured("autocontrast", 1, 9)
    assert stretched.amin((1, 2)).unique().tolist() == [0]
    assert stretched.amax((1, 2)).unique().tolist() == [255]


def test_a_translation_is_a_share_of_the_side() -> None:
    _, column = sources("translate_x", 1, 30)
    assert column[0, 0].tolist() == [2, 3, 4, 5, 5, 5]  # 150 / 331 * 6 = 2.7, cut to 2


def test_two_opposite_rotations_leave_every_pixel_in_its_place() -> None:
    chosen = np.full((1, 2), OPERATIONS.index("rotate"))
    matrices = randaugment.geometry(chosen, np.array([[1, -1]]), 20, (6, 6))
    row, column = randaugment.moved(torch.from_numpy(matrices), (6, 6))
    assert torch.equal(row[0] * 6 + column[0], torch.arange(36).view(6, 6))
