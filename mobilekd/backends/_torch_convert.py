"""Conversions in a process of their own, for the backends that are built from a torch program.

Importing their converters loads torch and prints warnings that are none of the user's; here all of it goes to the log.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from mobilekd.backend import Conversion, DeployedFacts
from mobilekd.errors import ConfigError, StageError
from mobilekd.process import run_logged
from mobilekd.profile import Deployment

_TIMEOUT_S = 1800.0
Answer = dict[str, Any]


def check_options(deployment: Deployment, precisions: tuple[str, ...]) -> None:
    """Accept a deployment with a float input, in a precision that a backend has.

    Raises:
        ConfigError: It asks for something else.
    """
    backend = deployment.backend
    if deployment.io != "float32":
        raise ConfigError(f"{deployment.name}: io is {deployment.io!r}", hint=f'set io = "float32" for {backend}')
    if deployment.precision not in precisions:
        raise ConfigError(
            f"{deployment.name}: precision is {deployment.precision!r}",
            hint=f"{backend} is built in {' and '.join(precisions)}",
        )


def source_of(request: Conversion) -> Path:
    """Return the ONNX file of a precision: the trained int8 network with its Q/DQ nodes, or the float student."""
    return request.qdq_onnx if request.deployment.precision == "int8" else request.float_onnx


def run_converter(worker: str, request: Conversion, file: Path) -> Answer:
    """Run a module's `serve` for one deployment; return its answer.

    Args:
        worker: The module.
        request: What to convert.
        file: What to write.

    Raises:
        StageError: What the module said, or how it died.
    """
    order, path = order_of(request, file), request.work / "order.json"
    path.write_text(json.dumps(order), encoding="utf-8")
    run_logged([sys.executable, "-m", worker, str(path)], request.log, timeout_s=_TIMEOUT_S)
    found: Answer = json.loads(Path(order["answer"]).read_text(encoding="utf-8"))
    if "message" in found:
        raise StageError(found["message"], hint=found["hint"])
    return found


def facts_of(
    request: Conversion, file: Path, found: Answer, *, tools: tuple[str, ...], runnable: bool, note: str
) -> DeployedFacts:
    """Return what is known of a file that `run_converter` wrote, from its answer and the ONNX file it came from."""
    from mobilekd import graph
    from mobilekd.backends import _onnx_facts

    model = graph.load(source_of(request))
    return DeployedFacts(
        deployment=request.deployment.model_dump(mode="json"),
        file=file.name,
        runnable=runnable,
        input=_onnx_facts.tensor_facts(model, "input"),
        output=_onnx_facts.tensor_facts(model, "output"),
        float_ops=tuple(found.get("float_ops", ())),
        other_float_ops=tuple(found.get("other_float_ops", ())),
        int8_tensors=found.get("int8_tensors", 0),
        tools={name: metadata.version(name) for name in tools},
        note=note,
    )


def order_of(request: Conversion, file: Path) -> Answer:
    """Return what a converter is told of one deployment, as plain JSON values; without a table it is float."""
    return {
        "source": str(source_of(request).resolve()),
        "table": str(request.quant_table.resolve()) if request.deployment.precision == "int8" else "",
        "file": str(file.resolve()),
        "work": str(request.work.resolve()),
        "answer": str((request.work / "answer.json").resolve()),
        "log": str(request.log),
    }


def serve(convert: Callable[[Answer], Answer]) -> None:
    """Be the other side: read the order that the command line names, convert, write the answer."""
    order: Answer = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logging.getLogger().setLevel(logging.ERROR)
    try:
        found = convert(order)
    except StageError as failure:
        found = {"message": failure.message, "hint": failure.hint}
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as failure:
        traceback.print_exc()
        reason = next((line for line in str(failure).splitlines() if line.strip()), type(failure).__name__)
        found = {"message": f"the converter refused the network: {reason}", "hint": f"the whole story: {order['log']}"}
    Path(order["answer"]).write_text(json.dumps(found), encoding="utf-8")
