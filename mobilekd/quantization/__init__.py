"""Quantization-aware training: scheme, quantizer, and the way from a trained network to its table."""
