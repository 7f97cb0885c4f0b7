"""Whose licences a bundle stands under."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

from mobilekd.errors import ConfigError
from mobilekd.plugins import choices
from mobilekd.release.evidence import Evidence
from mobilekd.release.manifest import Licence

NOT_STATED = "not stated"
_CLASSIFIER = "License :: "


def licences_of(evidence: Evidence, models: str) -> tuple[Licence, ...]:
    """Return the licences of the models, of what they were learned from, and of the tools that wrote the files.

    Args:
        evidence: Names the networks, the data set, and the tools.
        models: Licence under which the models are released, as an SPDX expression; empty when not stated.
    """
    networks = {trained.network.network: trained.network.licence for trained in evidence.trained}
    tools = {name: version for model in evidence.shipped for name, version in model.facts.tools.items()}
    named = [
        ("the models in this bundle", models),
        (f"data set {evidence.dataset.name}", evidence.dataset.licence),
        *((f"network {name}", licence) for name, licence in networks.items()),
        *((f"tool {name} {version}", tool_licence(name, version)) for name, version in sorted(tools.items())),
    ]
    return tuple(Licence(covers=covers, licence=licence or NOT_STATED) for covers, licence in named)


def with_network_licences(evidence: Evidence, stated: Mapping[str, str]) -> Evidence:
    """Return evidence whose networks have the licences that the user stated, by the network's name.

    Raises:
        ConfigError: There is no such network in this build.
    """
    known = dict.fromkeys(trained.network.network for trained in evidence.trained)
    for name in stated:
        if name not in known:
            raise ConfigError(f"bundle.network_licences names {name!r}", hint=choices(name, known))
    teacher, student, quantized = (
        replace(one, network=one.network.model_copy(update={"licence": licence}))
        if (licence := stated.get(one.network.network))
        else one
        for one in evidence.trained
    )
    return replace(evidence, teacher=teacher, student=student, quantized=quantized)


def licences_text(licences: tuple[Licence, ...]) -> str:
    """Return LICENSES.txt."""
    lines = [f"{one.covers}: {one.licence}\n" for one in licences]
    return "Licences of what this bundle holds and was made with.\n\n" + "".join(lines)


def tool_licence(name: str, version: str) -> str:
    """Return what an installed distribution of exactly this version says of its licence; empty when it is not here."""
    try:
        facts = metadata.metadata(name)
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    if facts["Version"] != version:
        return ""
    classifiers = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier", []) if line.startswith(_CLASSIFIER)
    ]
    short = _first(facts.get_all("License")).strip()
    stated = short if "\n" not in short and len(short) < 80 else ""  # some put the whole text there
    return _first(facts.get_all("License-Expression")) or stated or ", ".join(classifiers)


def _first(values: list[str] | None) -> str:
    return values[0] if values else ""
