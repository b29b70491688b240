"""How exactly matrix products are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ehrmeta.errors import DataError

__all__ = ["PRECISIONS", "check_precision", "matrix_products"]

PRECISIONS = ("float32", "float64", "tf32", "bf16")


def check_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that parameters and data are held in.

    Raises
    ------
    DataError
        An unknown precision, or one that the device lacks.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise DataError(f"precision must be one of {known}, got {precision!r}.")
    if precision == "tf32" and device.type != "cuda":
        raise DataError(
            f"precision='tf32' is of NVIDIA GPUs, and the device is '{device.type}': use "
            "'float32', or 'bf16'."
        )
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products inside are computed with the precision's short factors.

    ``"tf32"`` keeps 10 bits of each factor's fraction and ``"bf16"`` 7 (so that a result is good
    to about 1e-3 and 1e-2, relative); sums are in float32, and closed forms in float64, as ever.
    """
    if precision == "bf16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif precision == "tf32":
        products = torch.backends.cuda.matmul
        before, products.allow_tf32 = products.allow_tf32, True
        try:
            yield
        finally:
            products.allow_tf32 = before
    else:
        yield
