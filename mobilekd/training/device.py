"""Where a run computes and in which precision, and torch.compile."""

import contextlib
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from mobilekd.errors import StageError


def choose(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a recipe; of several GPUs the one that torchrun's LOCAL_RANK names.

    Raises:
        StageError: CUDA is asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise StageError(
            "device is 'cuda', and torch finds no CUDA device", hint="set device = 'cpu' or 'auto'", code="MKD-403"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def peak_bytes(device: torch.device) -> int:
    """Return the largest device memory so far; on the CPU the largest resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Precision:
    """The autocast of a forward pass, and for fp16 the scale of the loss (`scaler`; it passes through otherwise)."""

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        """Raise a StageError for fp16 on a device without it."""
        if name == "fp16" and device.type != "cuda":
            raise StageError(
                f"precision is 'fp16' on {device.type}",
                hint="set precision = 'bf16', or use a CUDA device",
                code="MKD-403",
            )
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self._device = device
        self.is_scaled = name == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.is_scaled)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of a forward pass."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype)


def slow_precision(name: Literal["fp32", "bf16", "fp16"], device: torch.device, cpuinfo: str) -> str:
    """Return advice where bf16 costs time: on a CPU without bfloat16 units; else nothing.

    One thread of such a CPU (AMD Zen 3) took 5 s for a step of KD from ResNet-56 to ResNet-8, batch 128, and 0.8 s in
    fp32.

    Args:
        name: Precision of the recipe.
        device: Where the run computes.
        cpuinfo: Text of /proc/cpuinfo; empty where there is none, which says nothing.

    Example:
        >>> slow_precision("bf16", torch.device("cpu"), "flags : sse2 avx2")
        "this CPU has no bfloat16 units, so bf16 is slower than fp32: set precision = 'fp32'"
    """
    units = {"amx_bf16", "avx512_bf16", "bf16"}
    if name != "bf16" or device.type != "cpu" or not cpuinfo or units & set(cpuinfo.split()):
        return ""
    return "this CPU has no bfloat16 units, so bf16 is slower than fp32: set precision = 'fp32'"


def eager(network: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Return a context in which a network that `compiled` holds runs without its compiled code."""
    if "forward" not in vars(network):
        return contextlib.nullcontext()  # `set_stance` alone imports the compiler, which takes seconds
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def compiled(network: nn.Module, device: torch.device, *, enabled: bool) -> Iterator[None]:
    """Run the network through torch.compile while the context is open; its parameters keep their names.

    Raises:
        StageError: There is no compiler, or it fails.
    """
    if not enabled:
        yield
        return
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise StageError(
            f"torch.compile needs a C++ compiler; not found: {', '.join(compilers)}",
            hint="install g++ or point CXX to a compiler, or set compile = false",
            code="MKD-403",
        )
    eager_forward = network.forward

    # torch.compile passes over functions of its own files, so nn.Module.compile leaves an nn.Sequential uncompiled.
    def forward(*inputs: object) -> object:
        return eager_forward(*inputs)

    network.forward = torch.compile(forward)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as cause:
        first = str(cause).strip().partition("\n")[0]
        raise StageError(f"torch.compile failed: {first}", hint="set compile = false", code="MKD-403") from cause
    finally:
        del network.forward
        # The compiler keeps code by the class of a network, and does not look whether this one has hooks: a later run
        # of the same class, with feature taps, would get code without them.
        torch.compiler.reset()
