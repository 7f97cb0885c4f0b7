"""What the passes over an exported graph share: constants, shapes, replacement."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def constant(model: GraphModule, node: object) -> Tensor | None:
    """Return the parameter or buffer that a node reads; None for anything that is computed."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    found: object = model
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found.detach() if isinstance(found, Tensor) else None


def add_constant(model: GraphModule, before: Node, name: str, value: Tensor, *, is_trained: bool = False) -> Node:
    """Store a constant under a free name that begins with `name`; return the node that reads it, before another.

    Args:
        model: The graph.
        before: Where to read it.
        name: Dotted path; what does not exist of it is made.
        value: Is copied.
        is_trained: Store a parameter, not a buffer.
    """
    folder, _, leaf = name.rpartition(".")
    owner = _folder(model, folder)
    number, free = 1, leaf
    while hasattr(owner, free):
        number += 1
        free = f"{leaf}_{number}"
    copied = value.detach().clone()
    if is_trained:
        owner.register_parameter(free, nn.Parameter(copied))
    else:
        owner.register_buffer(free, copied)
    with model.graph.inserting_before(before):
        node = model.graph.get_attr(f"{folder}.{free}".lstrip("."))
    node.meta["val"] = copied
    return node


def set_constant(model: GraphModule, node: Node, value: Tensor) -> None:
    """Give the parameter that a node reads another value."""
    folder, _, leaf = str(node.target).rpartition(".")
    owner = model.get_submodule(folder)
    if isinstance(getattr(owner, leaf), nn.Parameter):
        setattr(owner, leaf, nn.Parameter(value.detach().clone()))
    else:
        owner.register_buffer(leaf, value.detach().clone())
    node.meta["val"] = value.detach()


def _folder(model: GraphModule, path: str) -> nn.Module:
    owner: nn.Module = model
    for part in path.split(".") if path else ():
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    return owner


def call(model: GraphModule, before: Node, target: object, arguments: Sequence[object]) -> Node:
    """Insert an operator before another node; the shape of its output comes from running it on the inputs' shapes."""
    with model.graph.inserting_before(before):
        node = model.graph.call_function(target, tuple(arguments))  # type: ignore[arg-type]
    values = [one.meta.get("val") if isinstance(one, Node) else one for one in arguments]
    fake = next((one.fake_mode for one in values if hasattr(one, "fake_mode")), None)
    if fake is not None:
        with fake:
            inputs = [
                fake.from_tensor(one) if isinstance(one, Tensor) and not hasattr(one, "fake_mode") else one
                for one in values
            ]
            node.meta["val"] = target(*inputs)  # type: ignore[operator]
    return node


def source(node: Node, position: int = 0) -> Node:
    """Return the node that an operator reads at a position."""
    found = node.args[position]
    assert isinstance(found, Node)
    return found


def integers(value: object) -> list[int]:
    """Return an operator's list of whole numbers, as axes or sizes."""
    return [int(one) for one in cast("Iterable[int]", value)]


def replace(node: Node, by: object) -> None:
    """Let every reader of a node read another one, and take the node out."""
    assert isinstance(by, Node)
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def shape(node: object) -> tuple[int, ...]:
    """Return the sizes behind the batch, as [channels, height, width]; empty when unknown."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(int(size) for size in value.shape[1:]) if isinstance(value, Tensor) and value.ndim else ()


def rank(node: object) -> int:
    """Return the number of dimensions, the batch included; 0 when unknown."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value.ndim if isinstance(value, Tensor) else 0


def argument(node: Node, position: int, default: object) -> object:
    """Return a positional or named argument of an operator, else its default."""
    if position < len(node.args):
        return node.args[position]
    names = [one.name for one in node.target._schema.arguments]  # type: ignore[union-attr]
    return node.kwargs.get(names[position], default)


def pair(value: object, otherwise: object = 0) -> tuple[int, int]:
    """Return two integers from an operator's [n], [n, m] or n; an empty list gives `otherwise` twice."""
    found = [value] if isinstance(value, int) else integers(value)
    found = found or ([otherwise] if isinstance(otherwise, int) else integers(otherwise))
    return (found[0], found[-1])


def layer_name(weight: Node) -> str:
    """Return the layer that a weight belongs to, as "features.0" of "features.0.weight"."""
    return str(weight.target).removesuffix(".weight").removesuffix("_weight")
