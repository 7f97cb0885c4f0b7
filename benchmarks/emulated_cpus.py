"""A bundle on every CPU model of the emulator: instructions, int8 against fp32, answers against the host.

    python -m benchmarks.emulated_cpus BUNDLE [--images 200] [--runs 10] [--out docs/results]

Every model is counted in `--runs` processes of their own on the first CPU: do the counts repeat? Lone float models may
be given beside the bundle to have their ratio (a bundle ships int8 only): --floats DIR, the folder of a build's
`models`. Writes emulated_cpus.json and emulated_cpus.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilekd import bench, config
from mobilekd.benchmarking import emulated
from mobilekd.benchmarking.place import choose, open_place
from mobilekd.benchmarking.running import prepare
from mobilekd.config import Override
from mobilekd.device.cpus import CPUS
from mobilekd.measurement import host_name
from mobilekd.profile import Profile
from mobilekd.release.bundle import unpack_models
from mobilekd.workplace import open_workshop

Json = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Measure on every CPU, then repeat; write both files."""
    parser = argparse.ArgumentParser(prog="benchmarks.emulated_cpus")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--cpus", nargs="*", default=list(CPUS), choices=list(CPUS))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    chosen = parser.parse_args(arguments)
    rows = [row for cpu in chosen.cpus for row in _on(cpu, chosen.bundle, chosen.images)]
    repeated = _repeated(chosen.cpus[0], chosen.bundle, chosen.runs)
    command = f"python -m benchmarks.emulated_cpus BUNDLE --images {chosen.images} --runs {chosen.runs}"
    document = {"command": command, "host": host_name(), "rows": rows, "repeated": repeated}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "emulated_cpus.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (chosen.out / "emulated_cpus.md").write_text(_markdown(document), encoding="utf-8")
    return 0


def _profile(cpu: str, images: int) -> Profile:
    given = {"cpu": cpu, "place": "emulator", "images": images}
    overrides = [Override(("profile", "device", key), value, f"device.{key}") for key, value in given.items()]
    return config.load_profile("android-arm64", overrides)


def _on(cpu: str, bundle: Path, images: int) -> list[Json]:
    with open_workshop(None) as workshop:
        began = time.monotonic()
        devices = workshop.toolchains.parent / "devices"
        document = bench.measure([bundle], _profile(cpu, images), workshop.cache, devices, workshop.watcher)
        seconds = time.monotonic() - began
    print(f"{cpu}: {seconds:.1f} s", file=sys.stderr)
    kept = ("deployment", "guest_instructions", "on_device")
    return [{"cpu": cpu, "seconds": round(seconds, 1), **{key: row[key] for key in kept}} for row in document["models"]]


def _repeated(cpu: str, bundle: Path, runs: int) -> list[Json]:
    """Return the instructions of each model in so many processes and working folders of their own."""
    import numpy as np

    profile, totals = _profile(cpu, 1), {}
    with open_workshop(None) as workshop, tempfile.TemporaryDirectory(prefix="mobilekd-") as folder:
        unpacked = unpack_models(bundle, Path(folder))
        image = np.load(unpacked.input)
        for _ in range(runs):
            devices = workshop.toolchains.parent / "devices"
            with open_place(choose(profile), profile, devices) as transport:
                running = prepare(
                    transport,
                    [str(model.facts.deployment["backend"]) for model in unpacked.models],
                    state=devices,
                    scratch=Path(folder),
                    threads=1,
                    cores=(),
                    progress=workshop.watcher,
                )
                for model in unpacked.models:
                    counted = emulated.count(running, running.job(model, image))
                    totals.setdefault(model.name, []).append(counted.total)
    return [{"cpu": cpu, "deployment": name, "totals": found} for name, found in totals.items()]


def _markdown(document: Json) -> str:
    lines = [
        "# A bundle on emulated CPUs\n",
        (
            f"`{document['command']}`: the quickstart bundle, qemu-user; instructions of one inference on one thread, "
            f"never times. Answers are compared with those of the same file on {document['host']}, logit by logit. As "
            "trained: images all of whose logits are the quantized network's, and the largest difference there is.\n"
        ),
        (
            "| CPU | model | instructions | dot product | int8 matrix | same answer | bit-exact | apart, steps "
            "| as trained | as trained, host |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        counted, found = row["guest_instructions"], row["on_device"]
        classes = counted["classes"]
        lines.append(
            f"| {row['cpu']} | {row['deployment']} | {counted['total']:,} | {classes['dot_product']:,} "
            f"| {classes['i8mm']:,} | {found['same_answers']} of {found['images']} | {found['exact_images']} "
            f"| {found['max_steps']} | {_as_trained(found, '')} | {_as_trained(found, 'host_')} |"
        )
    lines += [
        "\n## Do counts repeat?\n",
        "| CPU | model | processes | smallest | largest | apart |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["repeated"]:
        low, high = min(row["totals"]), max(row["totals"])
        apart = f"{100 * (high - low) / low:.3f} %" if high > low else "identical"
        lines.append(f"| {row['cpu']} | {row['deployment']} | {len(row['totals'])} | {low:,} | {high:,} | {apart} |")
    return "\n".join(lines) + "\n"


def _as_trained(found: Json, whose: str) -> str:
    trained = found["trained"]
    if not trained:
        return "not known"
    steps = trained[whose + "max_steps"]
    return f"{trained[whose + 'exact_images']}, {steps} step{'s' * (steps != 1)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
