"""How an ONNX tensor lies in a TFLite tensor.

`axes[k]` is the ONNX axis that dimension k of the TFLite tensor holds: (0, 2, 3, 1) is NHWC.
"""

from collections.abc import Sequence

Axes = tuple[int, ...]
Shape = tuple[int, ...]
NHWC: Axes = (0, 2, 3, 1)


def identity(rank: int) -> Axes:
    """Return the axes of a tensor that lies as in ONNX."""
    return tuple(range(rank))


def usual(rank: int) -> Axes:
    """Return NHWC for four dimensions, else the axes as in ONNX."""
    return NHWC if rank == 4 else identity(rank)


def stored(shape: Sequence[int], axes: Axes) -> Shape:
    """Return the TFLite shape of an ONNX shape."""
    return tuple(int(shape[axis]) for axis in axes)


def permutation(source: Axes, target: Axes) -> Axes:
    """Return what TRANSPOSE takes to bring one layout to another."""
    return tuple(source.index(axis) for axis in target)


def through_transpose(axes: Axes, order: Sequence[int]) -> Axes:
    """Return how the result of an ONNX Transpose lies when the values stay where they are."""
    return tuple(order.index(axis) for axis in axes)


def raised(axes: Axes, rank: int) -> Axes:
    """Return the axes of a tensor that broadcasting gives leading axes of size 1."""
    extra = rank - len(axes)
    return (*range(extra), *(axis + extra for axis in axes))


def without(axes: Axes, removed: Sequence[int]) -> Axes:
    """Return the axes of a tensor that loses some."""
    kept = [axis for axis in axes if axis not in removed]
    return tuple(sorted(kept).index(axis) for axis in kept)


def last(axes: Axes, axis: int) -> Axes:
    """Return axes with one moved to the end."""
    return (*(one for one in axes if one != axis), axis)


def through_reshape(shape: Sequence[int], axes: Axes, result: Sequence[int]) -> Axes | None:
    """Return how the result of an ONNX Reshape lies when the values stay where they are.

    None when they can't stay: the reshape cuts or joins axes that are apart in this layout.
    """
    groups = _groups(shape, result)
    order: list[int] = []
    rest = [axis for axis in axes if shape[axis] != 1]
    while rest:
        before, after = next(group for group in groups if rest[0] in group[0])
        if rest[: len(before)] != before:
            return None
        order += after
        rest = rest[len(before) :]
    for wanted in (usual(len(result)), identity(len(result))):
        if [axis for axis in wanted if result[axis] != 1] == order:
            return wanted
    ones = [axis for axis in range(len(result)) if result[axis] == 1]
    front = ones[:1] if ones[:1] == [0] else []
    return (*front, *order, *ones[len(front) :])


def _groups(shape: Sequence[int], result: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest groups of axes, before and after a reshape, that hold the same values; no axes of size 1."""
    before = [axis for axis in range(len(shape)) if shape[axis] != 1]
    after = [axis for axis in range(len(result)) if result[axis] != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while before:
        left, right = [before.pop(0)], [after.pop(0)]
        sizes = [shape[left[0]], result[right[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left.append(before.pop(0))
                sizes[0] *= shape[left[-1]]
            else:
                right.append(after.pop(0))
                sizes[1] *= result[right[-1]]
        groups.append((left, right))
    return groups
