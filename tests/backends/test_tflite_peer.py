"""onnx2tf, a converter that shares no line with ours, as a witness: two files of one float network."""

from dataclasses import replace

import numpy as np
import pytest

from mobilekd import toolchain
from mobilekd.backends import _tflite_graph as tfl
from mobilekd.backends._tflite_session import TfliteSession
from mobilekd.backends.tflite import Tflite
from mobilekd.process import run_logged
from mobilekd.profile import Deployment
from tests.backends.networks import write_network
from tests.backends.tiny import session_logits


class Lines:
    def say(self, line: str) -> None:
        print(line)


@pytest.mark.slow
def test_our_float_file_computes_what_onnx2tfs_computes_with_fewer_transposes(tmp_path) -> None:
    request = write_network("timm:mobilenetv3_small_050", 32, tmp_path / "network")
    python = toolchain.install("onnx2tf", tmp_path / "toolchains", Lines())
    argv = [str(python), "-I", "-m", "onnx2tf", "-i", str(request.float_onnx), "-o", str(tmp_path / "peer"), "-n"]
    environment = toolchain.isolated_env(python)
    run_logged([*toolchain.offline_prefix(), *argv], tmp_path / "peer.log", env=environment, timeout_s=600.0)
    deployment = Deployment(backend="tflite", precision="fp32", ships=False)
    facts = Tflite().convert(replace(request, deployment=deployment))
    files = (request.out / facts.file, tmp_path / "peer" / "float_float32.tflite")
    images = np.load(request.qdq_onnx.parent / "samples.npy")[:4]
    ours, theirs = (session_logits(TfliteSession(file, "builtin", 1), images) for file in files)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    transposes = [tfl.count_kind(tfl.view(tfl.read_model(file)), "TRANSPOSE") for file in files]
    assert transposes[0] == 0 < transposes[1]
