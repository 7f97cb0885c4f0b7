"""Several processes of torchrun in one build: process 0 builds, the others run the training stages with it.

    torchrun --nproc-per-node 8 -m mobilekd train ...

Process 0 plans, looks into the cache and writes. When a stage trains, it sends the stage and what was made so far to
the others; all run it, and only what process 0 wrote is kept. A stage that does not train runs in process 0 alone.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from mobilekd.artifacts import Artifact
from mobilekd.errors import MobilekdError, StageError
from mobilekd.stage import Context, Inputs, Stage

_GRACE_S = 5.0
"""torchrun stops all processes when one ends badly; process 0 gets so long to tell its own error first."""


class Runner(Protocol):
    """Who runs a stage: this process, or all of torchrun's together."""

    def __call__(self, stage: Stage, inputs: Inputs, context: Context) -> None:
        """Fill `context.out`."""


@dataclass(frozen=True, slots=True)
class Task:
    """What process 0 sends: a stage to run together."""

    stage: Stage
    made: tuple[Artifact, ...]
    scratch: Path
    toolchains: Path
    soft_labels: Path | None


def run_here(stage: Stage, inputs: Inputs, context: Context) -> None:
    """Run a stage in this process."""
    stage.run(inputs, context)


def rank() -> int:
    """Return which of torchrun's processes this is; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes torchrun started, on all hosts; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def runner() -> Iterator[Runner]:
    """Give what runs the stages of process 0; the other processes work for it here and end with SystemExit.

    When the context ends well, the others end too. When it does not, torchrun stops them.
    """
    if count() == 1:
        yield run_here
        return
    if rank():
        _follow()
    leader = Leader()
    yield leader
    _send(None)
    _take_leave()


@dataclass(slots=True)
class Leader:
    """Runs what trains together with the other processes.

    After one failure they are no longer in step, so nothing more is run together.
    """

    failed: str = field(default="", init=False)

    def __call__(self, stage: Stage, inputs: Inputs, context: Context) -> None:
        """Run a stage; together where it is `parallel`."""
        if not stage.parallel:
            stage.run(inputs, context)
            return
        if self.failed:
            raise StageError(
                f"the processes are out of step since {self.failed} failed",
                hint="start the build again",
                code="MKD-404",
            )
        context.progress.say(f"{stage.label()}: runs in {count()} processes")
        _send(Task(stage, tuple(inputs), context.scratch, context.toolchains, context.soft_labels))
        self.failed = stage.label()
        stage.run(inputs, context)
        self.failed = ""


def _follow() -> NoReturn:
    """Run the stages that process 0 sends, until it sends None."""
    from mobilekd.training.run import Silent

    while True:
        try:
            task = _receive()
        except RuntimeError as cause:  # process 0 ended, and has told why
            raise SystemExit(StageError.exit_code) from cause
        if task is None:
            _take_leave()
            raise SystemExit(0)
        with tempfile.TemporaryDirectory(prefix="mobilekd-") as out:
            context = Context(Path(out), task.scratch, task.toolchains, Silent(), None, task.soft_labels)
            try:
                task.stage.run(Inputs(task.made), context)
            except MobilekdError as failure:
                told = f"error in process {rank()}: {failure.message} [{failure.code}]" + (
                    f"\n{failure.hint}" if failure.hint else ""
                )
                time.sleep(_GRACE_S)
                print(told, file=sys.stderr, flush=True)
                raise SystemExit(failure.exit_code) from failure


def _send(task: Task | None) -> None:
    from torch import distributed

    from mobilekd.training.parallel import join

    join()
    distributed.broadcast_object_list([task], src=0)


def _receive() -> Task | None:
    from torch import distributed

    from mobilekd.training.parallel import join

    join()
    got: list[Task | None] = [None]
    distributed.broadcast_object_list(got, src=0)
    return got[0]


def _take_leave() -> None:
    from mobilekd.training.parallel import meet

    meet()
