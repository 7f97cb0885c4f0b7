"""ExecuTorch's conversion in a process of its own: `python -m mobilekd.backends._executorch_convert REQUEST.json`.

Importing it loads torch and prints warnings of its own, none of which is the user's; a process of its own keeps both out.
"""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilekd.errors import StageError

TRACE, TRACED = "trace.pte", "trace.json"
"""Beside the model: the same network with every tensor of the table as an output, and the names of those."""


def main() -> None:
    """Write the .pte of one deployment, what was read back from it and, for int8, what traces it."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = Path(request["answer"])
    logging.getLogger().setLevel(logging.ERROR)
    try:
        found = _convert(request)
    except StageError as failure:
        answer.write_text(json.dumps({"message": failure.message, "hint": failure.hint}), encoding="utf-8")
        return
    answer.write_text(json.dumps(found), encoding="utf-8")


def _convert(request: dict[str, Any]) -> dict[str, Any]:
    from mobilekd import graph
    from mobilekd.backends._executorch_lower import lower

    model, file = graph.load(Path(request["source"])), Path(request["file"])
    lowered = lower(model, [model.graph.output[0].name])
    file.write_bytes(lowered.content)
    if not request["table"]:
        return {}
    return _check(file, lowered, request)


def _check(file: Path, lowered: Any, request: dict[str, Any]) -> dict[str, Any]:
    from mobilekd import graph
    from mobilekd.backends import _executorch_check
    from mobilekd.backends._executorch_file import read_pte
    from mobilekd.backends._executorch_lower import lower
    from mobilekd.quant_table import load_table

    source, table = Path(request["source"]), load_table(Path(request["table"]))
    found = _executorch_check.check(file, read_pte(file), lowered, source, table)
    model = graph.load(source)
    index = graph.index_qdq(model)
    public = graph.public_names(model, index)
    rounded = {public.get(tensor, tensor): real for real, tensor in reversed(index.rounded.items())}
    names = list(rounded)
    (file.parent / TRACE).write_bytes(lower(model, [rounded[name] for name in names]).content)
    (file.parent / TRACED).write_text(json.dumps(names), encoding="utf-8")
    return asdict(found)


if __name__ == "__main__":
    main()
