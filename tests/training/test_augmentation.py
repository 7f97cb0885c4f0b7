import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mobilekd.training.augmentation import random_flip, random_shift


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 100))
def test_a_shift_moves_an_image_whole(largest: int, seed: int) -> None:
    pixels = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    moved = random_shift(pixels, largest, torch.Generator().manual_seed(seed))
    padded = nn.functional.pad(pixels, (largest,) * 4, mode="replicate") if largest else pixels
    windows = [
        padded[0, :, top : top + 6, left : left + 6]
        for top in range(2 * largest + 1)
        for left in range(2 * largest + 1)
    ]
    assert any(torch.equal(moved[0], window) for window in windows)


def test_flip_mirrors_left_to_right() -> None:
    pixels = torch.arange(64 * 4, dtype=torch.float32).reshape(64, 1, 1, 4)
    flipped = random_flip(pixels, torch.Generator().manual_seed(0))
    mirrored = (flipped == pixels.flip(3)).all(dim=(1, 2, 3)).sum().item()
    assert 16 < mirrored < 48
    assert ((flipped == pixels.flip(3)) | (flipped == pixels)).all()
