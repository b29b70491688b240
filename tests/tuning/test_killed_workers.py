"""Kill -9 of a worker in the middle: every trial ends once, and the study goes on."""

import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from ehrmeta.tuning.study import open_study
from tests.tuning.postgres import server
from tests.tuning.worker import work

N_TRIALS = 8
SECONDS = 0.2  # of a trial
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # the children are simple
]


def trials_of(storage: str) -> list[FrozenTrial]:
    shared = open_study(
        storage,
        "shared",
        made_for={"data": "of a test"},
        measures=["error"],
        directions=["minimize"],
        pruner=None,
    )
    trials: list[FrozenTrial] = shared.study.trials
    shared.close()
    return trials


def lines_of(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def victim(log: Path, workers: list[BaseProcess]) -> BaseProcess:
    """A worker in the middle of a trial, once some trials have ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = lines_of(log)
        open_trials = dict.fromkeys(line[2] for line in lines if line[0] == "begin")
        begun = Counter(line[2] for line in lines if line[0] == "begin")
        ended = Counter(line[2] for line in lines if line[0] == "end")
        if sum(ended.values()) >= 2:
            for pid in open_trials:
                if begun[pid] > ended[pid]:
                    return next(w for w in workers if str(w.pid) == pid)
        time.sleep(0.01)
    pytest.fail("no worker got into the middle of a trial")


def check_killed_once(storage: str, log: Path, n_workers: int) -> None:
    context = get_context("fork")  # nothing to import again
    arguments = (storage, str(log), N_TRIALS, SECONDS)
    workers = [context.Process(target=work, args=arguments) for _ in range(n_workers)]
    for worker in workers:
        worker.start()
    killed = victim(log, workers)
    killed.kill()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers if w is not killed] == [0] * (n_workers - 1)
    assert killed.exitcode == -9

    trials = trials_of(storage)
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    lines = lines_of(log)
    ended = Counter(int(line[1]) for line in lines if line[0] == "end")
    assert set(ended.values()) == {1}
    # at most one was killed when the study had its trial's end, and before it wrote its own line
    assert len(ended) >= N_TRIALS - 1
    drawn = {(line[1], line[3]) for line in lines}  # whoever ran it, with the same parameters
    assert len(drawn) == N_TRIALS


@pytest.mark.parametrize("n_workers", [2, 4])
@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_no_trial_is_lost_or_doubled_in_a_file(tmp_path: Path, file: str, n_workers: int) -> None:
    check_killed_once(str(tmp_path / file), tmp_path / "log", n_workers)


def test_no_trial_is_lost_or_doubled_in_postgresql(tmp_path: Path) -> None:
    with server() as url:
        check_killed_once(url, tmp_path / "log", 4)


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_a_study_whose_only_worker_was_killed_resumes(tmp_path: Path, file: str) -> None:
    storage, log = str(tmp_path / file), tmp_path / "log"
    context = get_context("fork")  # nothing to import again
    worker = context.Process(target=work, args=(storage, str(log), N_TRIALS, SECONDS))
    worker.start()
    victim(log, [worker]).kill()
    worker.join(60)
    work(storage, str(log), N_TRIALS, 0.0)
    trials = trials_of(storage)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) == N_TRIALS
