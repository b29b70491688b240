from __future__ import annotations

import numpy as np
import torch

from benchmarks.speed.problem import Case, draw_problem, ragged_problem, simulate_patients


def test_a_ragged_batch_is_padded_and_says_how_much() -> None:
    problem = ragged_problem(16)
    assert 0.0 < problem.padding < 0.9
    assert problem.n_tasks == 16


def test_a_problem_has_the_sizes_of_its_case_and_is_drawn_by_its_seed():
    case = Case(n_features=3, width=8, shots=4, queries=5, n_tasks=6, steps=2)
    problem = draw_problem(case, seed=1)
    assert problem.widths == (3, 8, 8, 1)
    assert (problem.n_tasks, problem.shots, problem.queries, problem.padding) == (6, 4, 5, 0.0)
    assert torch.equal(problem.support.x, draw_problem(case, seed=1).support.x)
    assert not torch.equal(problem.support.x, draw_problem(case, seed=2).support.x)


def test_simulated_patients_differ_in_their_lines():
    patients = simulate_patients(np.full(300, 30), n_features=1)
    slopes = [
        np.polyfit(patients.X[rows, 0], patients.y[rows], 1)[0]
        for rows in (patients.groups == i for i in range(300))
    ]
    assert np.std(slopes) > 0.25  # 0.3 between patients, and noise
