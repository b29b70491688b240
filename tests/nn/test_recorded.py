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
from torch.fx.experimental.proxy_tensor import make_fx

from ehrmeta.errors import DataError
from ehrmeta.nn.recorded import Recorded, _hashable, _is_pure, _plain, _run_once, check_compiler


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


def test_a_graph_holds_every_operator_once_and_no_detached_copy():
    def function(x):
        return x.detach().exp() + x.exp() * x.detach().exp(), x.sin()[:0]

    graph = make_fx(function)(torch.ones(2)).graph
    expected = function(torch.ones(2))
    _run_once(graph)
    called = [node.target for node in graph.nodes if node.op == "call_function"]
    assert len(called) == len(set(called))
    assert torch.ops.aten.detach.default not in called
    found = Recorded(function, plain_calls=0)(torch.ones(2))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_operators_that_draw_or_write_are_all_kept():
    graph = make_fx(lambda x: (torch.rand_like(x), torch.rand_like(x), x.exp(), x.exp()))(
        torch.ones(2)
    ).graph
    before = len(graph.nodes)
    _run_once(graph)
    assert len(graph.nodes) == before
    assert not _is_pure(next(node for node in graph.nodes if "rand" in str(node.target)))


def test_arguments_that_compare_equal_are_told_apart():
    values = [1, 1.0, True, 0.0, -0.0, [1], (1,), {"a": 1}, {"b": 1}, {"a": 1.0}, "1", None]
    assert len({_hashable(value) for value in values}) == len(values)
    assert _hashable({"a": 1, "b": 2}) == _hashable({"b": 2, "a": 1})


def test_trees_are_copied_without_history():
    pair = {"p": Pair(torch.ones(2, requires_grad=True), torch.zeros(1)), "t": (torch.ones(1),)}
    with torch.no_grad():
        copied = _plain(pair)
    assert isinstance(copied["p"], Pair)
    assert isinstance(copied["t"], tuple)
    assert not copied["p"].x.requires_grad
    assert copied["p"].x.data_ptr() != pair["p"].x.data_ptr()
    assert torch.equal(copied["p"].x, pair["p"].x)


def test_compiled_functions_are_recorded_at_once_and_others_after_twenty_calls():
    assert Recorded(slope, compiled=True).plain_calls == 0
    assert Recorded(slope).plain_calls == 20
    again = copy.copy(Recorded(slope, plain_calls=3))
    assert (again.plain_calls, again.compiled) == (3, False)
    outside = Recorded(slope, plain_calls=0)(WEIGHTS, some_pair())["w"]
    assert not outside.requires_grad
