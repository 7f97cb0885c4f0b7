"""The memory of a sweep: an Optuna study in a journal file or a database, and what a killed process left in it."""

import os
import socket
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.errors import ConfigError, MissingToolError
from mobilekd.study import open_storage, reaching, shown_study
from mobilekd.sweep_grid import Axis, grid_size

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

PLAN, ERROR, FAILURE, VALUES = "plan", "error", "failure", "values"

_NAME = "mobilekd"
_MAX_RETRY = 3
_SIGNED_AFTER = timedelta(seconds=10)


def open_study(where: str, plan: str, sampler: "BaseSampler") -> "Study":
    """Return the study at a place, new or continued.

    Args:
        where: A journal file on this host, or the URL of a database: any that SQLAlchemy knows.
        plan: What the sweep varies, as text; a study keeps to one.
        sampler: Chooses the next combination.

    Raises:
        ConfigError: The study is of another plan, or its place can't be used.
        MissingToolError: Optuna, or the driver of the database, is not installed.
    """
    try:
        import optuna
    except ImportError as cause:
        raise MissingToolError(
            "optuna is not installed", hint="pip install 'mobilekd[sweep]'", code="MKD-302"
        ) from cause
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with reaching(where):
        study = optuna.create_study(
            storage=open_storage(where, _retry),
            study_name=_NAME,
            direction="maximize",
            sampler=sampler,
            load_if_exists=True,
        )
        known = study.user_attrs.setdefault(PLAN, plan)
        if known == plan:
            study.set_user_attr(PLAN, plan)
            return study
    raise ConfigError(
        f"{shown_study(where)} holds another sweep:\n{known}", hint="choose another --study or --out", code="MKD-263"
    )


def sampler_for(axes: Sequence[Axis], trials: int | None, *, seed: int) -> "BaseSampler":
    """Return the whole grid, or TPE where fewer trials than combinations are allowed.

    The seed is that of TPE: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization".
    """
    try:
        from optuna.samplers import GridSampler, TPESampler
    except ImportError as cause:
        raise MissingToolError(
            "optuna is not installed", hint="pip install 'mobilekd[sweep]'", code="MKD-302"
        ) from cause
    if is_grid(axes, trials):
        # The seed shuffles the numbers of the combinations, which the study remembers: always the same one.
        return GridSampler({one.key: list(one.choices) for one in axes}, seed=0)
    return TPESampler(seed=seed)


def is_grid(axes: Sequence[Axis], trials: int | None) -> bool:
    """Return whether every combination is tried."""
    return trials is None or trials >= grid_size(axes)


def sign(trial: "Trial") -> None:
    """Write into a trial which process runs it."""
    trial.set_user_attr("process", _process(os.getpid()))


def revive(study: "Study") -> list[int]:
    """Queue again what died: trials of processes of this host that are gone, and trials that Ctrl-C ended.

    A database with heartbeats does the former for trials of other hosts by itself. A trial is tried again three
    times; one that ended in an error of its own is not.

    Returns:
        The numbers of the trials that were queued again.
    """
    from optuna.trial import TrialState

    retry = _retry()
    for dead in (one for one in study.get_trials(states=(TrialState.RUNNING,)) if _is_dead(one)):
        study.tell(dead.number, state=TrialState.FAIL)
    trials = study.get_trials()
    retried = {number for one in trials for number in one.system_attrs.get("retry_history", ())}
    lost = [
        one
        for one in trials
        if one.state == TrialState.FAIL and ERROR not in one.user_attrs and one.number not in retried
    ]
    for one in lost:
        retry(study, one)
    return [one.number for one in lost]


def is_finished(study: "Study", axes: Sequence[Axis], trials: int | None) -> bool:
    """Return whether every combination, or the wanted number of them, is tried or being tried."""
    from optuna.trial import TrialState

    known = study.get_trials(deepcopy=False)
    if any(one.state == TrialState.WAITING for one in known):
        return False
    begun = [
        one
        for one in known
        if one.state in {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING} or ERROR in one.user_attrs
    ]  # fmt: skip
    if trials is None or is_grid(axes, trials):
        return len({one.system_attrs.get("grid_id") for one in begun}) >= grid_size(axes)
    return len(begun) >= trials


def _retry() -> "Callable[[Study, FrozenTrial], None]":
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry: Callable[[Study, FrozenTrial], None] = RetryHeartbeatStaleTrialCallback(max_retry=_MAX_RETRY)
    return retry


def _process(pid: int) -> list[str]:
    return [socket.gethostname(), str(pid), _started(pid)]


def _started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot: process ids are used again, above all in containers."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_dead(trial: "FrozenTrial") -> bool:
    """Return whether no process of this host runs a trial; one that is not signed by now died before it could."""
    if "process" not in trial.user_attrs:
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _SIGNED_AFTER
    host, pid, started = trial.user_attrs["process"]
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():  # we have not begun yet
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(started != _started(int(pid)))
