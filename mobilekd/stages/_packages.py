"""What a stage needs to be installed."""

from collections.abc import Sequence
from importlib.util import find_spec


def missing_packages(extra: str, modules: Sequence[str]) -> tuple[str, ...]:
    """Return one line naming the modules that are not installed and the extra that brings them; imports nothing."""
    absent = [name for name in modules if find_spec(name) is None]
    return (f"not installed: {', '.join(absent)}; run: pip install 'mobilekd[{extra}]'",) if absent else ()
