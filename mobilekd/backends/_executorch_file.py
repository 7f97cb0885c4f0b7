"""A .pte file as it lies on disk: its delegates, the operators outside them, and the constants of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.backends._executorch_xnn import XnnGraph, read_xnn
from mobilekd.errors import StageError

_XNNPACK = "XnnpackBackend"
_IDENTIFIERS = (b"ET12", b"ET13")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An operator that a portable kernel computes: its name, and its arguments that are real numbers."""

    name: str
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PteFile:
    """What a file computes, in order within each list."""

    graphs: tuple[XnnGraph, ...]
    kernels: tuple[Kernel, ...]


def read_pte(path: Path) -> PteFile:
    """Read a file that `mobilekd.backends._executorch_lower` wrote.

    Raises:
        StageError: It is no ExecuTorch program, or another delegate than XNNPACK computes in it.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    content = path.read_bytes()
    if content[4:8] not in _IDENTIFIERS:
        raise StageError(f"{path} is no ExecuTorch program: its bytes 4 to 8 are {content[4:8]!r}")
    file = deserialize_pte_binary(content)
    named = _named(file.named_data)
    payloads = file.program.backend_delegate_data
    graphs: list[XnnGraph] = []
    kernels: list[Kernel] = []
    for plan in file.program.execution_plan:
        for delegate in plan.delegates:
            if delegate.id != _XNNPACK:
                raise StageError(f"{path}: a part of it runs on {delegate.id}, which this version does not know")
            graphs.append(read_xnn(bytes(payloads[delegate.processed.index].data), named))
        kernels += _kernels(plan)
    return PteFile(tuple(graphs), tuple(kernels))


def _named(data: Any) -> dict[str, bytes]:
    if data is None:
        return {}
    return {key: bytes(data.buffers[entry.buffer_index]) for key, entry in data.pte_data.items()}


def _kernels(plan: Any) -> Sequence[Kernel]:
    found = []
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ != "KernelCall":
                continue
            values = (plan.values[at].val for at in call.args)
            numbers = tuple(one.double_val for one in values if type(one).__name__ == "Double")
            found.append(Kernel(plan.operators[call.op_index].name, numbers))
    return found
