"""Tables, fits and adapts in forked and spawned processes and in threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from ehrmeta import MAML, MLP, MetaRegressor, load_dataset, make_sinusoid


def work(_: int = 0) -> tuple[float, float]:
    """Sum of a bundled outcome, and a prediction of a model fitted and adapted here."""
    X, y, groups = make_sinusoid(n_tasks=200, n_points=10, random_state=0)
    model = MetaRegressor(MAML(), MLP((8,)), max_steps=2, random_state=0, verbose=False)
    adapted = model.fit(X, y, groups=groups).adapt(X, y, groups=groups)
    # 2,000 rows are enough for OpenMP and the package's own threads.
    return float(load_dataset("colon").y.sum()), float(adapted.predict(X, groups=groups)[0])


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_threads_of_one_process_compute_the_same():
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(work, range(3))) == {work()}


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("fork", marks=pytest.mark.skipif(sys.platform == "win32", reason="no fork")),
        pytest.param("spawn", marks=pytest.mark.slow),
    ],
)
def test_a_worker_computes_what_its_parent_does(start):
    command = [sys.executable, __file__, start]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-500:]


if __name__ == "__main__":
    torch.set_num_threads(2)
    expected = work()
    with get_context(sys.argv[1]).Pool(1) as pool:
        assert pool.apply_async(work).get(250) == pytest.approx(expected)
