"""Run `mobilekd bundle verify` once for each case, each in a fork of its own, and tell how it ended, as JSON.

The fork starts with everything imported, so that its time and memory are those of the bundle.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

from mobilekd import cli

CPU_SECONDS = 20
MEMORY_BYTES = 4 << 30


def main(plan: Path) -> None:
    """Read {"good": words, "cases": {name: words}}, and print {name: outcome}."""
    document = json.loads(plan.read_text())
    outcome = run(document["good"], plan.with_name("outcome.json"))  # in a fork: nothing of it is kept, so ...
    assert outcome["code"] == 0, outcome
    assert cli.run(["bundle", "verify", "--no-run", "--json", *document["good"]]) == 0  # ... import for all to come
    outcomes = {name: run(words, plan.with_name("outcome.json")) for name, words in document["cases"].items()}
    plan.with_name("outcomes.json").write_text(json.dumps(outcomes))


def run(words: list[str], report: Path) -> dict[str, object]:
    """Return the exit code, what was said, seconds and peak memory of one verification."""
    report.unlink(missing_ok=True)
    if (child := os.fork()) == 0:
        _verify(words, report)
    _, status = os.waitpid(child, 0)
    if not report.is_file():
        return {"code": -status, "said": "died", "seconds": 0.0, "peak_bytes": 0}
    document: dict[str, object] = json.loads(report.read_text())
    return document


def _verify(words: list[str], report: Path) -> None:
    said = report.with_name("said.txt")
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    began = time.process_time()
    try:
        code = cli.run(["bundle", "verify", "--no-run", *words])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    outcome = {
        "code": code,
        "said": said.read_text(errors="backslashreplace")[:20_000],
        "seconds": time.process_time() - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    report.write_text(json.dumps(outcome))
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
