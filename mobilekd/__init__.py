"""From a big image-recognition teacher to a small int8 bundle that a release engineer can ship."""

__version__ = "0.1.0"
