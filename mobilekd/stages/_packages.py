"""What a stage needs to be there."""

from collections.abc import Sequence
from importlib.util import find_spec


def missing_packages(extra: str, modules: Sequence[str]) -> tuple[str, ...]:
    """Return one line naming the modules that are not installed and the extra that brings them; imports nothing."""
    absent = [name for name in modules if find_spec(name) is None]
    return (f"not installed: {', '.join(absent)}; run: pip install 'mobilekd[{extra}]'",) if absent else ()


def missing_cuda(device: str, precision: str = "fp32") -> tuple[str, ...]:
    """Return one line where CUDA, or fp16, which needs it, is asked for and not there; else torch is not imported."""
    narrow = "precision is 'fp16' on cpu; set precision = 'bf16', or use a CUDA device"
    if device == "cpu":
        return (narrow,) if precision == "fp16" else ()
    if device != "cuda" and precision != "fp16":
        return ()
    import torch

    absent = "device is 'cuda', and torch finds no CUDA device; set device = 'cpu' or 'auto'"
    return () if torch.cuda.is_available() else (absent if device == "cuda" else narrow,)
