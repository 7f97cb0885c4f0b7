"""Conversions of the torch backends within the test's process: importing a converter takes longer than using it."""

from pathlib import Path

from mobilekd.backend import Conversion
from mobilekd.backends._torch_convert import Answer, order_of


def converted(converter: str, request: Conversion, file: Path) -> Answer:
    """Return the answer of a backend's converter, "executorch" or "coreml", that wrote `file`."""
    import importlib

    from mobilekd.backends import _torch_program

    with _torch_program.quiet():
        module = importlib.import_module(f"mobilekd.backends._{converter}_convert")
        answer: Answer = module.convert(order_of(request, file))
    return answer
