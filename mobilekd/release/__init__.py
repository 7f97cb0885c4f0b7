"""Bundles: manifest, archive, verification, report."""
