"""The repositories that apt reads: both formats of sources.list(5) read, one written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_KEPT_FIELDS = ("Signed-By", "Trusted")


@dataclass(frozen=True, slots=True)
class Source:
    """One repository that apt reads.

    Attributes:
        uri: Where it is.
        suites, components: What of it is read.
        options: Other fields to keep, as Signed-By.
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str]


def of_release(sources: Iterable[Source], codename: str, *, with_backports: bool) -> tuple[Source, ...]:
    """Return the sources of one release only: other repositories need not have our architecture.

    The backports suite stands beside the release on the same mirror.
    """
    kept: dict[tuple[str, tuple[str, ...]], Source] = {}
    for source in sources:
        suites = [suite for suite in source.suites if suite == codename or suite.startswith(f"{codename}-")]
        if with_backports and codename in suites and f"{codename}-backports" not in suites:
            suites.append(f"{codename}-backports")
        if suites:
            kept[source.uri, tuple(suites)] = Source(source.uri, tuple(suites), source.components, source.options)
    return tuple(kept.values())


def read_sources(text: str, *, is_deb822: bool) -> tuple[Source, ...]:
    """Return the binary-package repositories of one sources file; see sources.list(5) for both formats."""
    return tuple(_read_deb822(text) if is_deb822 else _read_lines(text))


def render_sources(sources: Iterable[Source]) -> str:
    """Return one-line entries (sources.list(5))."""
    lines = []
    for source in sources:
        options = " ".join(f"{name.lower()}={value}" for name, value in source.options.items())
        start = f"deb [{options}]" if options else "deb"
        lines += [f"{start} {source.uri} {suite} {' '.join(source.components)}\n" for suite in source.suites]
    return "".join(lines)


def _read_deb822(text: str) -> Iterator[Source]:
    for block in text.replace("\r", "").split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.title()
                fields[name] = value.strip()
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes").lower() == "no":
            continue
        options = {name: fields[name] for name in _KEPT_FIELDS if name in fields and "\n" not in fields[name]}
        for uri in fields.get("Uris", "").split():
            yield Source(uri, tuple(fields.get("Suites", "").split()), tuple(fields["Components"].split()), options)


def _read_lines(text: str) -> Iterator[Source]:
    for raw in text.splitlines():
        words = raw.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        rest = " ".join(words[1:])
        options: dict[str, str] = {}
        if rest.startswith("["):
            inside, _, rest = rest[1:].partition("]")
            pairs = (word.split("=", 1) for word in inside.split() if "=" in word)
            options = {name.title(): value for name, value in pairs if name.title() in _KEPT_FIELDS}
        uri, suite, *components = rest.split()
        yield Source(uri, (suite,), tuple(components), options)
