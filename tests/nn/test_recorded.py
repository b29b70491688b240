"""A recording gives the function's own numbers, whatever the shapes, threads and copies."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from torch.func import grad, vmap

from ehrmeta.errors import DataError
from ehrmeta.nn.recorded import Recorded, check_compiler


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def slope(weights, pair):
    """Per-task gradient of a squared error, as training computes it."""

    def loss(weights, x, y):
        return (torch.tanh(x @ weights["w"]) - y).square().mean()

    return vmap(grad(loss), (None, 0, 0))(weights, pair.x, pair.y)


def some_pair(n_tasks: int = 3, seed: int = 0) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_tasks, 5, 2, generator=generator)
    return Pair(x, torch.randn(n_tasks, 5, generator=generator))


WEIGHTS = {"w": torch.tensor([0.3, -0.7])}


def test_plain_and_recorded_calls_give_the_same_bits():
    recorded = Recorded(slope, plain_calls=2)
    for seed in range(6):
        pair = some_pair(seed=seed)
        assert torch.equal(recorded(WEIGHTS, pair)["w"], slope(WEIGHTS, pair)["w"])


def test_a_recorded_function_is_not_called_again():
    calls = []
    recorded = Recorded(lambda x: (calls.append(1), 2 * x)[1], plain_calls=3)
    for _ in range(10):
        recorded(torch.ones(2))
    assert len(calls) == 3 + 1


@pytest.mark.parametrize("other", [torch.ones(3), torch.ones(2).double()], ids=["shape", "dtype"])
def test_what_differs_in_kind_is_recorded_anew(other):
    recorded = Recorded(lambda x: x / x.shape[0], plain_calls=0)
    recorded(torch.ones(2))
    found = recorded(other)
    assert found.dtype == other.dtype
    assert torch.equal(found, other / len(other))


def test_repeated_work_is_done_once_but_random_numbers_are_drawn_each():
    double = Recorded(lambda x: torch.rand_like(x) - torch.rand_like(x), plain_calls=0)
    assert (double(torch.ones(100)) != 0).all()


def test_changes_in_place_are_kept():
    def function(x):
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        first += x
        return first, second

    first, second = Recorded(function, plain_calls=0)(torch.ones(2))
    assert first.tolist() == [1.0, 1.0]
    assert second.tolist() == [0.0, 0.0]


def test_records_in_inference_mode_and_replays_outside_it():
    recorded = Recorded(slope, plain_calls=0)
    pair = some_pair()
    with torch.inference_mode():
        inside = recorded(WEIGHTS, Pair(pair.x + 0, pair.y + 0))["w"]
    assert torch.equal(recorded(WEIGHTS, pair)["w"], inside)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_record_for_themselves(duplicate):
    recorded = Recorded(slope, plain_calls=0)
    pair = some_pair()
    expected = recorded(WEIGHTS, pair)["w"]
    assert torch.equal(duplicate(recorded)(WEIGHTS, pair)["w"], expected)


def test_threads_share_a_recording():
    recorded = Recorded(slope, plain_calls=3)
    pairs = [some_pair(seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: recorded(WEIGHTS, pair)["w"], pairs))
    for pair, value in zip(pairs, found, strict=True):
        assert torch.equal(value, slope(WEIGHTS, pair)["w"])


def test_threads_that_record_at_once_do_not_meet():
    tracing = threading.Event()

    def briefly(x):
        tracing.set()
        time.sleep(0.1)
        return 2.0 * x

    def long(x):
        time.sleep(0.3)
        return 3.0 * x

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Recorded(briefly, plain_calls=0), torch.ones(1))
        assert tracing.wait(30)
        second = pool.submit(Recorded(long, plain_calls=0), torch.ones(1))
        assert (first.result().item(), second.result().item()) == (2.0, 3.0)


def test_the_sign_of_zero_is_kept():
    both = Recorded(lambda x: (x * 0.0, x * -0.0), plain_calls=0)(torch.ones(1))
    assert [float(torch.copysign(torch.ones(()), zero)) for zero in both] == [1.0, -1.0]


@pytest.mark.slow
def test_compiled_differs_by_rounding_only():
    compiled, pair = Recorded(slope, compiled=True), some_pair()
    torch.testing.assert_close(compiled(WEIGHTS, pair)["w"], slope(WEIGHTS, pair)["w"])


@pytest.mark.parametrize(("device", "needed"), [("cpu", r"a C\+\+ compiler"), ("cuda", "Triton")])
def test_compiling_without_a_compiler_is_refused(monkeypatch, device, needed):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("ehrmeta.nn.recorded.find_spec", lambda name: None)
    with pytest.raises(DataError, match=f"needs {needed}"):
        check_compiler(torch.device(device))


def test_a_branch_on_a_value_is_refused_once_it_matters():
    recorded = Recorded(lambda x: x if float(x.sum()) > 0.0 else -x, plain_calls=1)
    assert recorded(torch.tensor([2.0])).item() == 2.0
    with pytest.raises(DataError, match="branches on the value of a tensor"):
        recorded(torch.tensor([2.0]))
