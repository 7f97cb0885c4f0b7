"""Quantization-aware training: scheme, quantizer, and the way from a trained network to its table."""

import logging
import warnings

# Importing torchao beside a CPU build of torch logs that its CUDA libraries do not load, and a deprecation of torch's
# own that nobody here can act on. Errors still come through.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

# torch's own, at every copy of an exported graph.
warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
