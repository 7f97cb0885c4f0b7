"""The training loop, networks, data and augmentation."""
