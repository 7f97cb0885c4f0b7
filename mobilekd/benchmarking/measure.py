"""Measure models where they will run; return latency.json: what each costs, and what it answers there."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd import measurement
from mobilekd.benchmarking import emulated
from mobilekd.benchmarking.agreement import Agreement, Trained, agree
from mobilekd.benchmarking.fitting import check_fits
from mobilekd.benchmarking.layer_names import read_names
from mobilekd.benchmarking.layers import layers_of
from mobilekd.benchmarking.place import Place, open_place
from mobilekd.benchmarking.running import Running, has_runtime, prepare
from mobilekd.benchmarking.timed import time_models, timed_row, told_state
from mobilekd.device.runner import Job
from mobilekd.measurement import Measured
from mobilekd.plugins import BACKENDS
from mobilekd.profile import IN_PAGES, Profile
from mobilekd.stage import Progress
from mobilekd.worker import run_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilekd.backend import Float32

Row = dict[str, Any]

_FLOAT_IMAGES = 8
"""Images that a float baseline answers on an emulator: float kernels are 25 times slower there than int8 ones."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure.

    Attributes:
        models: Those that can't run in the place get a row that says why.
        images: [n, channels, height, width], normalised; n is at least 1. The first one is timed.
        labels: int64 [n]; None where the images have none.
        trained: What the int8 models were trained to say to these images; None where that is not known.
    """

    models: Sequence[Measured]
    images: "Float32"
    labels: "NDArray[np.int64] | None"
    trained: Trained | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how.

    Attributes:
        state: Folder of this host for what is built and downloaded for devices.
        scratch: A directory that exists.
        layers: Whether each row says what each layer costs, from runs of their own.
    """

    profile: Profile
    place: Place
    state: Path
    scratch: Path
    progress: Progress
    layers: bool = False

    def measure(self, task: Task) -> Row:
        """Return latency.json: rows, raw samples of each block, and the device.

        Raises:
            ConfigError: It has fewer cores than the profile asks for.
            DeviceError: The device is not what the profile is for, it went away, or a model died there: nothing is
                kept of a run that is incomplete.
            MissingToolError: A program to reach or fill the device is not installed.
        """
        there = [model for model in task.models if not lack_of(model, self.place)]
        models = [model for model in there if has_runtime(model)]
        others = [model for model in there if not has_runtime(model)]
        document: Row = {
            "host": measurement.host_name(),
            "ran_on": self.place.told,
            "on_target": self.place.on_target,
            "place": self.place.kind,
            "why": self.place.why,
            "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": None,
            "states": [],
            "worries": [],
            "rows": [],
            "samples_ms": {},
        }
        if models:
            document |= self._on_device(task, models)
        if others:
            document = _joined(document, self._by_python(task, others))
        measured = {row["deployment"]: row for row in document["rows"]}
        where = {"ran_on": self.place.told, "on_target": self.place.on_target}
        rows = [{**measured.get(model.name, not_measured(model, self.place)), **where} for model in task.models]
        return {**document, "rows": with_ratios(rows)}

    def _on_device(self, task: Task, models: Sequence[Measured]) -> Row:
        settings = self.profile.benchmark
        backends = list(dict.fromkeys(str(model.facts.deployment["backend"]) for model in models))
        is_emulator = self.place.kind == "emulator"
        with open_place(self.place, self.profile, self.state, self.progress.say) as transport:
            facts = transport.facts()
            check_fits(self.profile, self.place, facts, self.progress.say)
            running = prepare(
                transport,
                backends,
                state=self.state,
                scratch=self.scratch,
                threads=1 if is_emulator else settings.threads,
                cores=() if is_emulator else settings.cores,  # they are CPUs of the device, not of its emulator's host
                progress=self.progress,
                choice=self.profile.device.runner,
            )
            jobs, answers = self._answers(running, task, models)
            costs = self._counted(running, jobs) if is_emulator else self._timed(running, jobs)
            layers = self._by_layer(running, models, jobs) if self.layers else {}
        rows = [
            {
                **_head(one),
                "measured_by": running.measured_by,
                **costs["rows"][one.name],
                **answers.get(one.name, {}),
                **layers.get(one.name, {}),
            }
            for one in models
        ]
        return {**costs, "rows": rows, "device": {**asdict(facts), "features": list(facts.features)}}

    def _answers(
        self, running: Running, task: Task, models: Sequence[Measured]
    ) -> tuple[dict[str, Job], dict[str, Row]]:
        """Return the job of each model, and what it answered on the device against this host."""
        jobs, found = {}, {}
        is_host = self.place.kind == "host"
        with self.progress.bar(f"answers on {self.place.told}", len(models)) as bar:
            for model in models:
                images = task.images[: self._images_for(model, len(task.images))]
                job = running.job(model, task.images[:1] if is_host else images)
                jobs[model.name] = job
                if not is_host:
                    given = replace(task, images=images)
                    found[model.name] = {"on_device": asdict(self._agreement(running, model, job, given))}
                bar.advance(1, model.name)
        return jobs, found

    def _agreement(self, running: Running, model: Measured, job: Job, given: Task) -> Agreement:
        backend = str(model.facts.deployment["backend"])
        labels = None if given.labels is None else given.labels[: len(given.images)]
        is_int8 = model.facts.deployment["precision"] == "int8"
        expected = run_model(
            backend,
            model.model,
            model.facts,
            given.images,
            kernels=BACKENDS.load(backend).kernels[0],
            threads=1,
            scratch=self.scratch,
        )
        return agree(running.answers(model, job), expected, labels, given.trained if is_int8 else None)

    def _images_for(self, model: Measured, images: int) -> int:
        is_float = model.facts.deployment["precision"] != "int8"
        return min(images, _FLOAT_IMAGES) if is_float and self.place.kind == "emulator" else images

    def _counted(self, running: Running, jobs: Mapping[str, Job]) -> Row:
        rows = {}
        with self.progress.bar("instructions", len(jobs)) as bar:
            for name, job in jobs.items():
                rows[name] = emulated.count(running, job).to_row()
                bar.advance(1, name)
        return {"rows": rows}

    def _timed(self, running: Running, jobs: Mapping[str, Job]) -> Row:
        timed = time_models(running, jobs, self.profile.benchmark, self.progress)
        samples = {name: [list(block) for block in timed.measurement.blocks_ms(name)] for name in jobs}
        rows = {name: timed_row(timed, name, self.profile.benchmark.threads) for name in jobs}
        states = [told_state(state) for state in timed.measurement.states]
        return {"rows": rows, "samples_ms": samples, "states": states, "worries": list(timed.worries)}

    def _by_layer(self, running: Running, models: Sequence[Measured], jobs: Mapping[str, Job]) -> dict[str, Row]:
        found = {}
        names = read_names(models)
        with self.progress.bar("layers", len(models)) as bar:
            for model in models:
                layers, why = layers_of(running, model, jobs[model.name], names)
                found[model.name] = {"layers": [one.to_json() for one in layers], "layers_note": why}
                bar.advance(1, model.name)
        return found

    def _by_python(self, task: Task, models: Sequence[Measured]) -> Row:
        return measurement.measure(
            models, task.images[:1], settings=self.profile.benchmark, scratch=self.scratch, progress=self.progress
        )


def lack_of(model: Measured, place: Place) -> str:
    """Return why a model can't be measured in a place; empty when it can."""
    if not model.facts.runnable:
        return model.facts.note or "can't run"
    backend = model.facts.deployment["backend"]
    if place.transport == "web":
        return "" if backend in IN_PAGES else "not run: a browser takes ONNX models only"
    if has_runtime(model) or place.kind == "host":
        return ""
    return f"not measured on the {place.kind}: mkdrun has no {backend}"


def not_measured(model: Measured, place: Place) -> Row:
    """Return the row of a model that can't be measured in a place: what it is, and why."""
    return {**_head(model), "latency_kind": None, "note": lack_of(model, place)}


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with cost(fp32) / cost(int8) on every int8 row whose backend has an fp32 row."""
    floats = {row["backend"]: _cost(row) for row in rows if row["precision"] == "fp32"}
    return [{**row, "int8_speedup": _ratio(row, floats.get(row["backend"]))} for row in rows]


def _ratio(row: Row, float_cost: float | None) -> float | None:
    cost = _cost(row)
    return float_cost / cost if row["precision"] == "int8" and float_cost and cost else None


def _cost(row: Row) -> float | None:
    counted = row.get("guest_instructions")
    return float(counted["total"]) if counted else row.get("p50_ms")


def _head(model: Measured) -> Row:
    deployment = model.facts.deployment
    words = ("backend", "precision", "ships")
    return {"deployment": model.name, **{key: deployment[key] for key in words}, "int8_speedup": None}


def _joined(first: Row, second: Row) -> Row:
    return {
        **first,
        "rows": [*first["rows"], *second["rows"]],
        "samples_ms": {**first["samples_ms"], **second["samples_ms"]},
    }
