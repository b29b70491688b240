"""The treatment benchmark measures what it says."""

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.treatment.methods import BASES, MetaLearner
from benchmarks.treatment.simulated import measure_sites
from benchmarks.treatment.survival import measure_survival
from benchmarks.treatment.table import treatment_tables
from benchmarks.treatment.trials import measure_trial


@pytest.mark.parametrize("kind", ["T", "X", "DR", "R"])
def test_the_learners_of_the_field_find_a_linear_effect(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3))
    t = (rng.random(1000) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    y = X[:, 0] + t * (1 + X[:, 1]) + rng.normal(size=1000)
    effect = MetaLearner(kind, BASES["ridge"]).fit(X, y, t).effect(X)
    assert np.sqrt(np.mean((effect - 1 - X[:, 1]) ** 2)) < 0.25


def test_zero_and_constant():
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(400, 2)), rng.integers(0, 2, 400)
    y = t + rng.normal(size=400)
    assert not MetaLearner("zero", BASES["ridge"]).fit(X, y, t).effect(X).any()
    constant = MetaLearner("constant", BASES["ridge"]).fit(X, y, t).effect(X)
    assert np.ptp(constant) == 0
    assert constant[0] == pytest.approx(1, abs=0.3)


def test_the_bayes_rule_is_right_as_often_as_it_says():
    records = measure_sites("Bayes rule", 1.0, 1.0, (0, 20), 1)
    found = {(record.metric, record.k): record.value for record in records}
    assert found["pehe", 20] < 0.8 * found["pehe", 0]
    assert found["coverage", 20] == pytest.approx(0.9, abs=0.03)


def test_one_arm_for_all_gains_nothing_over_itself():
    records = measure_trial("rhdnase", "zero")
    gain = next(record for record in records if record.metric == "gain_sd")
    assert gain.value <= 0  # the control for all, where the drug is better
    assert "rhdnase" in treatment_tables(records)


def test_weights_for_censoring_agree_with_kaplan_meier():
    records = measure_survival("udca")
    ours, plain = (record.value for record in records)
    assert ours == pytest.approx(plain, abs=40)  # days, of 1,096


def test_the_command_writes_its_records(tmp_path):
    file = tmp_path / "treatment.json"
    arguments = ["treatment", "--quick", "--part", "sites", "--method", "T ridge"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "Bayes rule" in result.output
    assert file.exists()
