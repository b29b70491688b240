"""What a precision means, and that one the device lacks is refused."""

from __future__ import annotations

import pytest
import torch

from ehrmeta.errors import DataError
from ehrmeta.nn.precision import PRECISIONS, check_precision, matrix_products

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parameters_and_data_are_held_in_full(precision):
    expected = torch.float64 if precision == "float64" else torch.float32
    assert check_precision(precision, torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("precision", "message"), [("half", "got 'half'"), ("tf32", "of NVIDIA GPUs")]
)
def test_what_cannot_be_had_is_refused(precision, message):
    with pytest.raises(DataError, match=message):
        check_precision(precision, CPU)


def test_settings_of_torch_are_put_back():
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    with matrix_products("tf32", CPU):
        assert products.allow_tf32
    with matrix_products("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert products.allow_tf32 == before
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
