import threading

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from ehrmeta.errors import DataError, MemoryWarning
from ehrmeta.nn.device import (
    FEW_POINTS,
    PRECISIONS,
    Chunks,
    check_precision,
    for_points,
    for_rows,
    in_threads,
    matrix_products,
    on_one_core,
)

CPU = torch.device("cpu")


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


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pieces_come_back_in_order_from_threads_that_work_alone(two_threads):
    both = threading.Barrier(2, timeout=10)  # passed only where two threads meet

    def work(piece):
        both.wait()
        return piece, torch.get_num_threads(), threading.current_thread().name

    pieces, n_threads, names = zip(*in_threads(work, list(range(4))), strict=True)
    assert pieces == (0, 1, 2, 3)
    assert set(n_threads) == {1}
    assert threading.current_thread().name not in names
    assert torch.get_num_threads() == 2


def test_an_error_propagates_and_the_number_of_threads_is_unchanged(two_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda piece: 1 // piece, [1, 0, 2])
    assert torch.get_num_threads() == 2
    assert in_threads(lambda _: torch.get_num_threads(), [0]) == [2]


def test_little_work_is_done_on_one_core(two_threads):
    assert on_one_core(torch.get_num_threads) == 1
    with pytest.raises(ZeroDivisionError):
        on_one_core(lambda: 1 // 0)
    assert torch.get_num_threads() == 2


def test_few_points_on_the_cpu_are_computed_on_one_core(two_threads):
    cpu = torch.device("cpu")
    assert for_points(FEW_POINTS, torch.get_num_threads, cpu) == 1
    assert for_points(FEW_POINTS + 1, torch.get_num_threads, cpu) == 2
    assert for_points(1, torch.get_num_threads, torch.device("cuda")) == 2


def blas_threads():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


@pytest.mark.parametrize(("n_rows", "n_threads"), [(FEW_POINTS, 1), (FEW_POINTS + 1, 2)])
def test_a_table_of_few_rows_is_computed_on_one_core_in_torch_and_blas(
    n_rows, n_threads, two_threads
):
    with threadpool_limits(2, user_api="blas"):
        assert for_rows(n_rows, blas_threads) == {n_threads}
        assert blas_threads() == {2}
    assert for_rows(n_rows, torch.get_num_threads) == n_threads


def test_threads_that_others_start_meanwhile_keep_the_usual_number(two_threads):
    on_one_core(int)  # the pool is there
    numbers = []

    def work() -> None:
        for _ in range(2):  # a thread of somebody else, started during a call
            other = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
            other.start()
            other.join(10)

    on_one_core(work)
    assert numbers == [2, 2]


def test_work_in_a_thread_starts_no_more_threads(two_threads):
    inner = on_one_core(lambda: in_threads(lambda _: threading.current_thread().name, [0, 1]))
    assert len(set(inner)) == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parameters_and_data_are_held_in_full(precision):
    expected = torch.float64 if precision == "float64" else torch.float32
    assert check_precision(precision, torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("precision", "message"), [("half", "got 'half'"), ("tf32", "needs an NVIDIA GPU")]
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
