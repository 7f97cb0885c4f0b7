"""What a signature says: an in-toto Statement v1 over the archive and every file in it, with a SLSA v1 predicate.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilekd.artifacts import canonical_json
from mobilekd.errors import VerificationError
from mobilekd.release.archive import check_names
from mobilekd.release.manifest import Manifest
from mobilekd.release.strict_json import parse_canonical

ARCHIVE = "bundle.zip"
PROVENANCE = "provenance.json"
BUILD_TYPE = "urn:mobilekd:build:1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True, validate_by_name=True)


class _Digest(_Record):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Subject(_Record):
    name: str
    digest: _Digest


class Statement(_Record):
    """Subjects: the archive, then each file of the bundle in byte order of their names."""

    form: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[_Subject, ...] = Field(min_length=2)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(alias="predicateType")
    predicate: dict[str, Any]

    @property
    def archive(self) -> str:
        """Return the sha256 of the archive."""
        return self.subject[0].digest.sha256

    @property
    def files(self) -> dict[str, str]:
        """Return the sha256 of each file of the bundle, by name."""
        return {one.name: one.digest.sha256 for one in self.subject[1:]}


def statement_of(archive: str, files: Mapping[str, str], predicate: dict[str, Any]) -> Statement:
    """Return the statement over an archive and its files, given by their sha256."""
    named = ((ARCHIVE, archive), *sorted(files.items(), key=lambda item: item[0].encode()))
    subjects = tuple(_Subject(name=name, digest=_Digest(sha256=sha256)) for name, sha256 in named)
    return Statement(
        form="https://in-toto.io/Statement/v1",
        subject=subjects,
        predicate_type="https://slsa.dev/provenance/v1",
        predicate=predicate,
    )


def minimal_predicate(manifest: Manifest) -> dict[str, Any]:
    """Return the SLSA predicate of a bundle without provenance.json: what its manifest knows; no clock."""
    tools = {name: version for model in manifest.models for name, version in model.tools.items()}
    parameters = {"pipeline": manifest.pipeline, "profile": manifest.profile.name}
    builder = {"id": "urn:mobilekd:builder", "version": {"mobilekd": manifest.mobilekd, **tools}}
    return {
        "buildDefinition": {"buildType": BUILD_TYPE, "externalParameters": parameters},
        "runDetails": {"builder": builder},
    }


def statement_text(statement: Statement) -> str:
    """Return the signed payload as text."""
    return canonical_json(statement.model_dump(mode="json"))


def parse_statement(payload: bytes, where: str) -> Statement:
    """Return a statement from a payload whose signature holds.

    Raises:
        VerificationError: It is not byte for byte what `statement_text` writes, or not about a bundle.
    """
    parse_canonical(payload, where)
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VerificationError(f"{where}: the signed statement: {place[:80]!r}: {first['msg']}") from cause
    names = [one.name for one in statement.subject]
    if names[0] != ARCHIVE or names[1:] != sorted(set(names[1:]) - {ARCHIVE}, key=str.encode):
        raise VerificationError(f"{where}: the signed statement names a file twice, or its files out of order")
    check_names(names[1:], Path(where))
    return statement
