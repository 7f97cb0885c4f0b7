"""Code for each model of a bundle: one complete file a language and runtime, with the numbers of that model file."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath

from mobilekd.errors import ConfigError
from mobilekd.release.app import literals
from mobilekd.release.app.templates import fill, fit_of, pixel_values
from mobilekd.release.manifest import Manifest, ModelEntry

ASSET_FOLDER, ASSET_NAME = "model", "model"


@dataclass(frozen=True, slots=True)
class Language:
    """How a language writes what a template needs.

    Attributes:
        folder: Of the files in the app's directory.
        ends: What a file name ends with.
        string: A string literal.
        suffix: Behind a float32 literal.
    """

    folder: str
    ends: str
    string: Callable[[str], str]
    suffix: str


KOTLIN = Language("android", "kt", literals.kotlin, "f")
SWIFT = Language("ios", "swift", literals.swift, "")
CPP = Language("cpp", "cpp", literals.cpp, "f")
_LANGUAGES = {"tflite": (KOTLIN, SWIFT), "onnxruntime": (SWIFT, CPP), "mnn": (CPP,)}
BACKENDS = tuple(_LANGUAGES)
"""Those that code is written for; the first that a bundle has is the one of its AI pack."""
_DISTRIBUTIONS = {"tflite": "ai-edge-litert", "onnxruntime": "onnxruntime", "mnn": "mnn"}


def coded_models(manifest: Manifest) -> tuple[ModelEntry, ...]:
    """Return the models that code is written for.

    Raises:
        ConfigError: There are none, or one has an input that no code is written for.
    """
    models = tuple(one for one in manifest.models if one.options.backend in _LANGUAGES and one.reference is not None)
    if not models:
        raise ConfigError(
            f"no model of this bundle has app code: {', '.join(one.deployment for one in manifest.models)}",
            hint=f"code is written for models of {', '.join(BACKENDS)} that were run where they were built",
        )
    for model in models:
        _check_edges(model, manifest)
    return models


def snippets(manifest: Manifest, model: ModelEntry) -> Mapping[str, str]:
    """Return the code files of a model: path in the app's directory -> text."""
    return {
        f"{language.folder}/{_file_name(model, language)}": _code(manifest, model, language)
        for language in _LANGUAGES[model.options.backend]
    }


def runtime_version(model: ModelEntry) -> str:
    """Return the version of the runtime that a model was proved on; the pinned one where its entry says none."""
    versions = {name.lower(): version for name, version in model.tools.items()}
    return versions.get(_DISTRIBUTIONS[model.options.backend], _pinned(model.options.backend))


def _pinned(backend: str) -> str:
    text = (resources.files("mobilekd.device") / "runtimes.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)[backend]["version"])


def _check_edges(model: ModelEntry, manifest: Manifest) -> None:
    rule, taken = manifest.preprocessing, model.input
    expected = {"NCHW": (1, 3, rule.height, rule.width), "NHWC": (1, rule.height, rule.width, 3)}
    if taken.shape != expected.get(taken.layout) or model.output.shape != (1, len(manifest.labels)):
        raise ConfigError(
            f"{model.deployment}: no app code for input {taken.layout} {list(taken.shape)}, "
            f"output {list(model.output.shape)}"
        )
    if taken.dtype != model.output.dtype or taken.dtype not in ("float32", "int8"):
        raise ConfigError(f"{model.deployment}: no app code for input {taken.dtype}, output {model.output.dtype}")
    if taken.dtype == "int8" and None in (taken.scale, taken.zero_point, model.output.scale, model.output.zero_point):
        raise ConfigError(f"{model.deployment}: the manifest lacks a scale or zero point of its int8 input or output")


def _file_name(model: ModelEntry, language: Language) -> str:
    if language is CPP:
        return f"{literals.identifier(model.deployment)}.cpp"
    return f"{literals.class_name(model.deployment)}.{language.ends}"


def _code(manifest: Manifest, model: ModelEntry, language: Language) -> str:
    values = _values(manifest, model, language)
    values["fit"] = fill(f"fit_{fit_of(manifest.preprocessing)}.{language.ends}", values)
    values["io"] = fill(f"io_{model.input.dtype}.{language.ends}", values)
    values["pixels"] = fill(f"pixels.{language.ends}", values)
    values["main"] = fill("main.cpp", values) if language is CPP else ""
    return fill(f"{model.options.backend}.{language.ends}", values).rstrip("\n") + "\n"


def _values(manifest: Manifest, model: ModelEntry, language: Language) -> dict[str, object]:
    suffix = PurePosixPath(model.file).suffix
    dataset, top1 = manifest.dataset.name, manifest.accuracy[-1].top1_test
    return {
        **pixel_values(manifest.preprocessing, language.suffix),
        "title": literals.comment(f"{dataset}: {len(manifest.labels)} classes, top-1 {top1:.4f} on its test split."),
        "file": literals.comment(PurePosixPath(model.file).name),
        "layout": model.input.layout,
        "dtype": model.input.dtype,
        "index": "at * 3 + c" if model.input.layout == "NHWC" else "c * area + at",
        "classes": len(manifest.labels),
        "shape": ", ".join(map(str, model.input.shape)),
        "version": literals.comment(runtime_version(model)),
        "class_name": literals.class_name(model.deployment),
        "namespace": literals.identifier(model.deployment),
        "asset": f"{ASSET_FOLDER}/{ASSET_NAME}{suffix}",
        "folder": language.string(ASSET_FOLDER),
        "asset_name": language.string(f"{ASSET_NAME}{suffix}"),
        "input_name": language.string(model.input.name),
        "output_name": language.string(model.output.name),
        "dimension_type": "TENSORFLOW" if model.input.layout == "NHWC" else "CAFFE",
        "element": "float" if model.input.dtype == "float32" else "int8",
        **_quantization(model, language.suffix),
    }


def _quantization(model: ModelEntry, suffix: str) -> dict[str, object]:
    if model.input.dtype != "int8":
        return {}
    assert model.input.scale is not None
    assert model.output.scale is not None
    return {
        "input_scale": literals.number(model.input.scale, suffix),
        "input_zero_point": model.input.zero_point,
        "output_scale": literals.number(model.output.scale, suffix),
        "output_zero_point": model.output.zero_point,
    }
