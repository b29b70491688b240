import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ehrmeta.estimators.threads import in_threads, one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pieces_come_back_in_order_from_threads_that_work_alone(two_threads):
    met = threading.Barrier(2, timeout=10)  # passed only where two threads meet

    def work(piece):
        met.wait()
        return piece, torch.get_num_threads(), threading.current_thread().name

    found = in_threads(work, list(range(4)))
    assert [piece for piece, _, _ in found] == [0, 1, 2, 3]
    assert {n_threads for _, n_threads, _ in found} == {1}
    assert threading.current_thread().name not in {name for _, _, name in found}
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_the_number_of_threads_is_kept(two_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda piece: 1 // piece, [1, 0, 2])
    assert torch.get_num_threads() == 2
    assert in_threads(lambda _: torch.get_num_threads(), [0]) == [2]


def test_little_work_stays_on_one_thread(two_threads):
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_users_that_overlap_do_not_take_the_lowered_number_for_the_usual_one(two_threads):
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with one_thread():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    def second() -> None:
        assert first_in.wait(10)
        with one_thread():
            second_in.set()
            assert first_out.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2
