"""From a big image-recognition teacher to a small int8 bundle that a release engineer can ship."""

import os

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime starts a telemetry thread when it is loaded, which its own API stops too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
