"""Where a hostile case is built: a good signed bundle to start from, and the attacker's tools."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import canonical_json, digest_file, files_below
from mobilekd.release.archive import write_archive
from mobilekd.release.dsse import PAYLOAD_TYPE, Envelope, envelope_text, pae
from mobilekd.release.manifest import MANIFEST, MEASUREMENTS_MANIFEST, digest_text
from mobilekd.release.signing_keys import PrivateKey

Words = list[str]
"""What stands behind `mobilekd bundle verify --no-run`."""
Case = Callable[["Site"], Words]


@dataclass(frozen=True)
class Site:
    """A folder of one case, and what every case may use."""

    root: Path
    good: Path
    """A signed bundle: bundle/, x.zip, x.zip.sig.json."""
    key: PrivateKey
    other: PrivateKey
    public: Path

    def folder(self) -> Path:
        """Return a copy of the good bundle's folder."""
        return shutil.copytree(self.good / "bundle", self.root / "bundle")

    def archive(self, content: bytes) -> Path:
        """Return an archive with this content."""
        (self.root / "x.zip").write_bytes(content)
        return self.root / "x.zip"

    def packed(self, folder: Path) -> Path:
        """Return the well-formed archive of a folder."""
        write_archive(folder, self.root / "x.zip")
        return self.root / "x.zip"

    def content(self) -> dict[str, bytes]:
        """Return all files of the good bundle."""
        below = self.good / "bundle"
        return {path.as_posix(): (below / path).read_bytes() for path in files_below(below)}

    def signature(self) -> dict[str, Any]:
        """Return the good signature file, as JSON."""
        document: dict[str, Any] = json.loads((self.good / "x.zip.sig.json").read_text())
        return document

    def statement(self) -> dict[str, Any]:
        """Return the good statement."""
        document: dict[str, Any] = json.loads(base64.b64decode(self.signature()["payload"]))
        return document

    def with_signature(self, text: str | bytes, bundle: Path | None = None) -> Words:
        """Return the words that verify a bundle, the good archive unless given, with a signature file."""
        path = self.root / "s.sig.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [str(bundle or self.good / "x.zip"), "--key", str(self.public), "--signature", str(path)]

    def with_payload(self, payload: bytes, key: PrivateKey | None = None) -> Words:
        """Return the words that verify the good archive with a payload that was really signed."""
        signer = key or self.key
        envelope = Envelope(payload, signer.keyid, signer.sign(pae(PAYLOAD_TYPE, payload)))
        return self.with_signature(envelope_text(envelope))

    def signed(self, bundle: Path) -> Words:
        """Return the words that verify a bundle with the good signature."""
        return self.with_signature((self.good / "x.zip.sig.json").read_bytes(), bundle)

    def with_measurements(self, content: bytes) -> Words:
        """Return the words for a bundle folder with another measurements/manifest.json."""
        folder = self.folder()
        (folder / MEASUREMENTS_MANIFEST).write_bytes(content)
        return [str(folder)]

    def with_manifest(self, content: bytes) -> Words:
        """Return the words for a bundle folder with another manifest.json, whose digest was made to fit."""
        folder = self.folder()
        (folder / MANIFEST).write_bytes(content)
        seal(folder)
        return [str(folder)]

    def with_input(self, content: bytes) -> Words:
        """Return the words for a folder with another reference input, whose digests were made to fit."""
        folder = self.folder()
        (folder / "reference/input.npy").write_bytes(content)
        return self.resealed(lambda document: None, folder)

    def resealed(self, change: Callable[[dict[str, Any]], object], folder: Path | None = None) -> Words:
        """Return the words for a folder whose manifest was changed, and all digests made to fit."""
        folder = folder or self.folder()
        manifest = json.loads((folder / MANIFEST).read_text())
        for entry in manifest["files"]:
            path = folder / entry["path"]
            entry.update(bytes=path.stat().st_size, sha256=digest_file(path))
        change(manifest)
        (folder / MANIFEST).write_text(canonical_json(manifest))
        seal(folder)
        return [str(folder)]


def seal(folder: Path) -> None:
    """Make the measurements of a bundle fit its manifest."""
    document = json.loads((folder / MEASUREMENTS_MANIFEST).read_text())
    document |= {"bundle": digest_file(folder / MANIFEST), "digest": ""}
    document["digest"] = digest_text(canonical_json(document))
    (folder / MEASUREMENTS_MANIFEST).write_text(canonical_json(document))
