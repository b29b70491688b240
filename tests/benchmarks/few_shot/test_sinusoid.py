"""The sinusoid benchmark: references at their known values, every learner in the table."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import pytest

from benchmarks.few_shot.sinusoid import METHODS, Training, run_sinusoid, sinusoid_table
from benchmarks.suite.cells import Run
from ehrmeta.algorithms import ALGORITHMS, MAML, CarryForward


@pytest.fixture(scope="module")
def references():
    records = run_sinusoid(Run(), methods=())
    return {(r.case, r.method, r.metric, r.k): r for r in records}


@pytest.mark.parametrize(
    ("case", "method", "expected"),
    [
        ("noiseless", "predicting 0", 4.25),
        ("noiseless", "best without adapting", 3.01),
        ("noiseless", "floor: sin and cos known", 0.0),
        ("noise 0.1", "predicting 0", 4.26),
        ("noise 0.1", "best without adapting", 3.02),
        ("noise 0.1", "floor: sin and cos known", 0.0156),
    ],
)
def test_references_are_where_theory_puts_them(references, case, method, expected):
    record = references[case, method, "mse", 5]
    assert record.low - 1e-9 <= expected <= record.high
    assert record.n_tasks >= 1000


def test_another_process_can_be_handed_every_learner():
    for training in METHODS.values():
        assert b"ehrmeta.algorithms" in bytes(ForkingPickler.dumps(training))


def test_every_learner_of_real_outcomes_has_a_row():
    tabled = {type(training.algorithm) for training in METHODS.values()}
    serve = {algorithm for algorithm in ALGORITHMS.values() if "real" in algorithm.serves}
    assert serve - tabled == {CarryForward}, "needs time, and outcomes that repeat"


def test_a_finished_cell_is_read_again(tmp_path, monkeypatch):
    tiny = Training(MAML(inner_steps=1), max_steps=200, batch_size=16)
    monkeypatch.setitem(METHODS, "tiny", tiny)
    printed: list[str] = []
    run = Run(quick=True, cache=tmp_path, echo=printed.append)
    first, second = (run_sinusoid(run, ("noiseless",), ("tiny",)) for _ in range(2))
    assert first == second
    assert len(list(tmp_path.iterdir())) == 4  # three references, one learner
    assert len(printed) == 8
    table = sinusoid_table(first)
    assert "tiny" in table
    assert "predicting 0" in table
