"""A network's answers on a whole split."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mobilekd.training.data import Images
from mobilekd.training.device import eager


def predict(network: nn.Module, images: Images, batch_size: int = 128) -> NDArray[np.float32]:
    """Return logits float32 [n, classes] of a whole split, in evaluation mode, on the network's device."""
    network.eval()
    first = next(network.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    with torch.no_grad(), eager(network):  # the last batch has another size: no recompile
        parts = [
            network(torch.from_numpy(batch).to(device, memory_format=torch.channels_last)).float().cpu().numpy()
            for batch in images.batches(batch_size)
        ]
    return np.concatenate(parts)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose largest logit is their label's, 0 to 1."""
    return float((logits.argmax(axis=1) == labels).mean())
