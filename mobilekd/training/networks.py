"""Networks by name: `timm:NAME` or `python:package.module:factory`, with an optional checkpoint."""

import difflib
import functools
import importlib
import importlib.util
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

# What networks of others raise on an image of another size, as timm's AssertionError.
_REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, LookupError)
_FORMS = "use timm:NAME (as timm:resnet18) or python:package.module:factory"


def check_name(name: str) -> str:
    """Return the name of a network if it can be found; nothing heavy is imported.

    Raises:
        ValueError: The form is wrong, timm has no such network, or the module does not exist.
    """
    kind, _, rest = name.partition(":")
    if kind == "timm" and rest:
        known = timm_names()
        base = rest.partition(".")[0]
        if known and base not in known:
            near = difflib.get_close_matches(base, known, n=3)
            raise ValueError(f"timm has no network {rest!r}" + (f"; close: {', '.join(near)}" if near else ""))
        return name
    module, _, factory = rest.partition(":")
    if kind != "python" or not module or not factory.isidentifier():
        raise ValueError(f"{name!r} names no network; {_FORMS}")
    if module_file(module) is None:
        raise ValueError(f"no module {module!r} on the import path; run from its folder or set PYTHONPATH")
    return name


@functools.cache
def timm_names() -> frozenset[str]:
    """Return the networks of the installed timm, read from its source: importing timm takes seconds.

    Empty when timm is not installed.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    names: set[str] = set()
    for path in (Path(spec.submodule_search_locations[0]) / "models").glob("*.py"):
        names.update(re.findall(r"^@register_model\ndef (\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
    return frozenset(names)


def module_file(module: str) -> Path | None:
    """Return the source file of a user's module, looked up in the working folder too; None if there is none."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def source_files(name: str, checkpoint: Path | None) -> dict[str, Path]:
    """Return the user's files that decide what `build` gives: their module ("network") and their "checkpoint"."""
    kind, _, rest = name.partition(":")
    module = module_file(rest.partition(":")[0]) if kind == "python" else None
    found = {"network": module, "checkpoint": checkpoint}
    return {role: path for role, path in found.items() if path is not None}


def build(name: str, classes: int, *, pretrained: bool = False, checkpoint: Path | None = None) -> "nn.Module":
    """Return a network whose logits have one column per class.

    Args:
        name: A name that `check_name` takes.
        classes: Number of classes.
        pretrained: Start from timm's published weights (needs a network, or timm's own cache).
        checkpoint: Start from a state dict: safetensors, or a pickle that holds tensors only.

    Raises:
        ConfigError: The factory fails, gives no module, or the checkpoint is of another network.
    """
    kind, _, rest = name.partition(":")
    network = _from_timm(rest, classes, pretrained=pretrained) if kind == "timm" else _from_factory(rest, classes)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    return network


def _from_timm(name: str, classes: int, *, pretrained: bool) -> "nn.Module":
    import torch

    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    import timm

    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=classes)
    except (RuntimeError, OSError, ValueError) as cause:
        raise ConfigError(
            f"timm can't make {name!r}: {str(cause).splitlines()[0]}",
            hint="without a network set pretrained = false, or give checkpoint = FILE",
            code="MKD-250",
        ) from cause
    assert isinstance(network, torch.nn.Module)
    return network


def _from_factory(name: str, classes: int) -> "nn.Module":
    import torch

    module_name, _, factory_name = name.partition(":")
    module_file(module_name)
    module = importlib.import_module(module_name)
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = ", ".join(sorted(one for one in vars(module) if not one.startswith("_")))
        raise ConfigError(
            f"python:{name}: {module_name} has no function {factory_name!r}", hint=f"it has: {known}", code="MKD-250"
        )
    network = factory(num_classes=classes)
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(
            f"python:{name} gave {type(network).__name__}, not a torch.nn.Module", hint=_FORMS, code="MKD-250"
        )
    return network


def channels_last(network: "nn.Module") -> "nn.Module":
    """Return the network with its weights in channels-last memory, which CPU convolutions want."""
    import torch

    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def check_output(network: "nn.Module", name: str, example: "Tensor", classes: int) -> None:
    """Raise a ConfigError unless the network takes the image and gives one logit a class."""
    import torch

    with torch.no_grad():
        try:
            logits = network.eval()(example)
        except _REFUSALS as cause:
            told = (str(cause) or type(cause).__name__).splitlines()[0]
            raise ConfigError(
                f"{name} does not take an image of {list(example.shape)}: {told}",
                hint=f"set data.image_size to what the network takes{_named_size(network)}",
                code="MKD-250",
            ) from cause
    if tuple(logits.shape) != (len(example), classes):
        raise ConfigError(
            f"{name} gives {list(logits.shape)} for {len(example)} images; the data has {classes} classes",
            hint=f"its last layer must give {classes} logits; a factory gets num_classes={classes}",
            code="MKD-250",
        )


def _named_size(network: "nn.Module") -> str:
    """Return the image size that a timm network names, in words."""
    named = getattr(network, "default_cfg", None)
    size = named.get("input_size") if isinstance(named, Mapping) else None
    return f": {size[-1]}" if size else ""


def load_checkpoint(network: "nn.Module", path: Path) -> None:
    """Fill a network from a state dict.

    Raises:
        ConfigError: The file is not there, is no checkpoint, holds code, or belongs to another network.
    """
    found = {name.removeprefix("module."): value for name, value in read_state_dict(path).items()}
    wanted = network.state_dict()
    # BatchNorm's counters came with torch 0.4.1 and decide nothing here; older checkpoints have none.
    counters = {name: value for name, value in wanted.items() if name.endswith(".num_batches_tracked")}
    found = {**counters, **found}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape)
    if missing or extra or other:
        parts = [
            f"{len(missing)} tensors missing (first: {missing[0]})" if missing else "",
            f"{len(extra)} unknown (first: {extra[0]})" if extra else "",
            f"{other[0]} is {list(found[other[0]].shape)}, not {list(wanted[other[0]].shape)}" if other else "",
        ]
        raise ConfigError(
            f"{path} is a checkpoint of another network: {'; '.join(part for part in parts if part)}",
            hint="name the network that was trained, with the same number of classes",
            code="MKD-251",
        )
    network.load_state_dict(found)


def read_state_dict(path: Path) -> Mapping[str, "Tensor"]:
    """Return the tensors of a checkpoint; code in a pickle is never run.

    Raises:
        ConfigError: See `load_checkpoint`.
    """
    import safetensors
    import safetensors.torch
    import torch

    if not path.is_file():
        raise ConfigError(
            f"checkpoint {str(path)!r} is not a file",
            hint="give the path of a .safetensors, .pt or .pth",
            code="MKD-251",
        )
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        document = torch.load(path, map_location="cpu", weights_only=True)
    except safetensors.SafetensorError as cause:
        raise ConfigError(
            f"{path} is not a safetensors file: {cause}", hint="was the download cut off?", code="MKD-251"
        ) from cause
    except pickle.UnpicklingError as cause:
        raise ConfigError(
            f"{path} is refused: it is no plain state dict, and unpickling it could run code",
            hint="save it with torch.save(model.state_dict(), ...) or as safetensors",
            code="MKD-251",
        ) from cause
    except (RuntimeError, EOFError, ValueError, OSError) as cause:  # torch seeks before the start of a short file
        raise ConfigError(
            f"{path} can't be read: {str(cause).splitlines()[0]}", hint="was it cut off?", code="MKD-251"
        ) from cause
    inner = document.get("state_dict", document) if isinstance(document, dict) else document
    if not isinstance(inner, dict) or not all(isinstance(one, torch.Tensor) for one in inner.values()):
        raise ConfigError(
            f"{path} holds no state dict", hint="save it with torch.save(model.state_dict(), ...)", code="MKD-251"
        )
    return inner
