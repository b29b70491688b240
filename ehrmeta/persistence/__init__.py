"""The model file: named tensors and their settings, written whole and checked before use."""

from ehrmeta.persistence.bundle import read_bundle, write_bundle

__all__ = ["read_bundle", "write_bundle"]
