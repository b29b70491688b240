from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.patients.cells import MIXED_MODEL, POPULATION, TunedPlan
from benchmarks.patients.run import run_patients
from benchmarks.suite.cells import Run

PLAN = TunedPlan(folds_run=2, max_tasks=150, max_steps=5, tuned=False)


CHEAP = ("deep mixed effects", MIXED_MODEL, "mixed + OU", "last value", POPULATION)


@pytest.fixture(scope="module")
def results():
    printed = []
    scored = run_patients(Run(echo=printed.append), PLAN, ("pbcseq-albumin",), CHEAP)
    assert len(printed) == len(CHEAP) * PLAN.folds_run
    return scored


@pytest.mark.slow
def test_workers_give_the_same_numbers(results):
    scored = run_patients(Run(workers=2), PLAN, ("pbcseq-albumin",), ("mixed + OU",))
    expected = results["pbcseq-albumin"]["mixed + OU"].scores[1]["squared"]
    np.testing.assert_allclose(
        scored["pbcseq-albumin"]["mixed + OU"].scores[1]["squared"], expected, rtol=1e-6
    )


def test_the_command_runs_and_saves(tmp_path):
    file = tmp_path / "out.json"
    words = ["patients", "--quick", "--data-set", "pbcseq-albumin", "--method", "last value"]
    shown = CliRunner().invoke(main, [*words, "--json", str(file)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "rmse_macro" in shown.output
    assert file.exists()
