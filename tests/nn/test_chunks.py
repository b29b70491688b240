import pytest
import torch

from ehrmeta.errors import MemoryWarning
from ehrmeta.nn.chunks import Chunks


def on_a_device_for(most):
    """Squares of the items of a part, where at most so many fit."""

    def compute(part):
        tried.append(part.stop - part.start)
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [i * i for i in range(part.start, part.stop)]

    tried = []
    return compute, tried


@pytest.mark.parametrize("n_items", [1, 7, 8, 23])
def test_what_does_not_fit_is_halved_until_it_fits_and_nothing_is_lost_or_done_twice(n_items):
    compute, _ = on_a_device_for(3)
    chunks = Chunks(3)
    plain = sum(chunks.map(compute, n_items), [])
    assert plain == [i * i for i in range(n_items)]
    if n_items > 3:
        with pytest.warns(MemoryWarning, match="4 tasks at once"):
            halved = sum(Chunks(8).map(on_a_device_for(2)[0], n_items), [])
        assert halved == plain


def test_it_is_said_once_and_what_did_not_fit_is_not_tried_again():
    compute, tried = on_a_device_for(2)
    chunks = Chunks(16)
    with pytest.warns(MemoryWarning) as said:
        list(chunks.map(compute, 16))
        list(chunks.map(compute, 16))
    assert len(said) == 1
    assert [n for n in tried if n > 2] == [16, 8, 4]


def test_one_item_that_does_not_fit_is_an_error():
    compute, _ = on_a_device_for(0)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(MemoryWarning):
        list(Chunks(4).map(compute, 4))
