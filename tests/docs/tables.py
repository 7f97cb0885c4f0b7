"""What the commands of the docs stand for, and how they are made short enough for a test.

A page that shows a new command needs no line here, unless it has a word in capitals (PLACEHOLDERS), trains for long
(SHRINK), is meant to fail (EXIT_CODES), or needs what no test has (NOT_RUN).
"""

_QUICKSTART = "dist/quickstart-android-arm64.mobilekd.zip"

PLACEHOLDERS = {
    "BUNDLE": _QUICKSTART,
    "DIR": "photos",
    "HOST": "localhost",
}

NOT_RUN = {
    "make build": "minutes: it is the quickstart at full length; `mobilekd build` runs here, shortened",
    "make test": "it is what runs this test",
    "make coverage": "it is what runs this test",
    "make docs": "installs; tests/docs/test_browser.py builds the site by the same `mkdocs build --strict`",
    "mobilekd bench BUNDLE --profile rpi5 --set profile.device.host=HOST --mode release": "needs a board over ssh",
}
"""Commands, as they stand in the docs, that no test can run, each with the reason."""

_SHORT_TRAINING = (
    "data.image_size=16",
    "teacher.network=python:tests.training.nets:wide", "teacher.epochs=1", "teacher.train_images=48",
    "distill.network=python:tests.training.nets:narrow", "distill.epochs=1", "distill.train_images=48",
    "teacher.batch_size=16", "distill.batch_size=16", "teacher.threads=1", "distill.threads=1", "distill.views=0",
)  # fmt: skip
_SHORT_BUILD = (
    *_SHORT_TRAINING,
    "quantize.epochs=1", "quantize.train_images=48", "quantize.batch_size=16", "quantize.threads=1",
    "profile.benchmark.timed_runs=10", "profile.benchmark.warmup_runs=1", "profile.device.images=2",
    "profile.benchmark.baseline=none",
    "profile.tolerance.top1_drop=1.0", "profile.tolerance.agreement=0.0",
    "profile.tolerance.other_top1_drop=1.0", "profile.tolerance.other_agreement=0.0", "profile.budget.top1_drop=1.0",
)  # fmt: skip
_ONE_BACKEND = ('profile.deploy=[{backend="onnxruntime"}]',)


def _set(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for value in values for word in ("--set", value))


QUICK_BUILD = _set(_SHORT_BUILD)

SHRINK = (
    (r"^mobilekd (build|plan|sensitivity)\b", QUICK_BUILD),
    (r"^mobilekd (build|sensitivity)\b.*photos", _set(_ONE_BACKEND)),
    (r"^mobilekd (train|sweep)\b", _set(_SHORT_TRAINING)),
    (r"^mobilekd train\b.*--epochs", ("--epochs", "1")),
    (r"^mobilekd sweep\b", ("--seeds", "1", "--trials", "1", "--out", "{new}")),  # a folder holds one sweep
    (r"^mobilekd bench\b(?!.*--on host)", ("--images", "1", "--set", "profile.benchmark.timed_runs=10")),
    (r"^mobilekd bench\b", ("--set", "profile.benchmark.warmup_runs=1", "--set", "profile.tolerance.agreement=0.0")),
    (r"^mobilekd build\b", ("--out", "{new}")),  # no command changes what another one reads: their order is random
    (r"^mobilekd init\b", ("--out", "{new}.toml")),  # each writes a file of its own: init keeps what is there
    (r"^mobilekd bundle keygen\b", ("--out", "{new}.key")),
    (r"^mobilekd (bundle app|fetch)\b", ("--out", "{new}")),
)
"""Pattern -> options that are put behind the command; of an option that comes twice the last one counts."""

EXIT_CODES = {
    r"--bisect": {0, 7},  # 7: a tensor drifts, as it may in a network that was trained for one epoch
    r"^mobilekd doctor": {0, 3},  # 3: a tool is missing
    r"^mobilekd devices doctor": {0, 3},
    r"^mobilekd gate\b": {0, 6},  # 6: a budget does not hold
}
"""Pattern -> exit codes that the docs say may come; all others end in 0."""
