"""One bundle of real models, of a network of 6 layers, and what an app gets of it; no test may change them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilekd.plugins import BACKENDS
from mobilekd.release.app.writing import write_app
from mobilekd.release.bundle import unpack
from mobilekd.release.manifest import Manifest
from mobilekd.release.pack import write_bundle
from mobilekd.release.reference import HOST, Runtime
from tests.backends.tiny import write_tiny
from tests.release.workshop import MODELS, OPTIONS, Model, Workshop, _deployment, _json


@dataclass
class RealWorkshop(Workshop):
    """A workshop whose int8 models are converted, and run."""

    models: tuple[Model, ...] = MODELS[:3]

    def _deployed(self, one: Model) -> Path:
        from mobilekd.profile import Deployment

        folder = self._folder(f"deployed-{one.backend}-{one.precision}")
        deployment = Deployment.model_validate(_deployment(one))
        request = write_tiny(self.root / f"tiny-{one.backend}").for_(deployment)
        facts = BACKENDS.load(one.backend)().convert(request)
        shutil.copyfile(request.out / facts.file, folder / facts.file)
        _json(folder / "deployment.json", facts.to_json())
        return folder

    def real_bundle(self, runtime: Runtime = HOST) -> Path:
        """Return the folder of a bundle whose reference pairs were run."""
        out = self.root / "out"
        out.mkdir()
        write_bundle(self.evidence(), OPTIONS, runtime, out, self.root)
        return out / "bundle"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RealWorkshop(tmp_path_factory.mktemp("real")).real_bundle()


@pytest.fixture(scope="session")
def app(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("app") / "app"
    write_app(bundle, out)
    return out


@pytest.fixture(scope="session")
def manifest(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return unpack(bundle, tmp_path_factory.mktemp("unpacked"))[0]
