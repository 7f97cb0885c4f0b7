"""Files and functions stay small: the limits of docs/architecture.md, as a command for `make check`."""

import ast
import sys
from pathlib import Path

FILE_P95, FILE_MAX = 250, 400
FUNCTION_P95, FUNCTION_MAX = 40, 70


def p95(sizes: list[int]) -> int:
    """Return the 95th percentile by the nearest-rank rule."""
    return sorted(sizes)[-(-95 * len(sizes) // 100) - 1]


def main() -> int:
    """Print what is too large; return 1 if anything is."""
    files = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in Path("mobilekd").rglob("*.py")}
    functions = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    faults = [f"{path}: {lines} lines, at most {FILE_MAX}" for path, lines in files.items() if lines > FILE_MAX]
    faults += [
        f"{name}: {lines} lines, at most {FUNCTION_MAX}" for name, lines in functions.items() if lines > FUNCTION_MAX
    ]
    for what, sizes, limit in (("files", files, FILE_P95), ("functions", functions, FUNCTION_P95)):
        reached = p95(list(sizes.values()))
        print(f"{what}: {len(sizes)}, p95 {reached} lines (limit {limit})")
        if reached > limit:
            faults.append(f"95 % of all {what} must have at most {limit} lines; p95 is {reached}")
    print("\n".join(faults))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
