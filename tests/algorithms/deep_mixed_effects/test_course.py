"""Courses that bend: splines, the clock, and what held-out tasks choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.algorithms.deep_mixed_effects.course import (
    Design,
    Form,
    choose_form,
    fit_course,
    natural_basis,
    standard_time,
)
from ehrmeta.nn import TaskRows

N_TASKS, N_ROWS = 30, 8


def patients(course, *, noise=0.3, seed=0):
    """Rows whose outcome is ``course(level, size, time)`` with noise, and their outcome."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 10, (N_TASKS, N_ROWS)), axis=1)
    time[:, 0] = 0.0
    level, size = rng.normal(0, 1, (N_TASKS, 1)), rng.normal(1, 0.3, (N_TASKS, 1))
    y = (course(level, size, time) + rng.normal(0, noise, time.shape)).ravel()
    rows = TaskRows.from_codes(
        torch.arange(N_TASKS).repeat_interleave(N_ROWS),
        N_TASKS,
        timed=True,
        x=torch.zeros(len(y), 1),
        measured=torch.zeros(len(y), 0),
        time=torch.from_numpy(time.ravel()),
        y=torch.from_numpy(y),
        origin=torch.arange(len(y)),
    )
    return rows, y


COURSES = {
    "straight": lambda level, size, time: level + 0.3 * size * time,
    "curve": lambda level, size, time: 2 * level + 6 * np.exp(-0.5 * (time - 4) ** 2),
    "own": lambda level, size, time: level + 6 * size * np.exp(-0.5 * (time - 4) ** 2),
    "log": lambda level, size, time: level + (2 + 3 * level) * np.log1p(5 * time),
}


def test_a_natural_spline_is_a_combination_of_the_basis_and_a_line():
    knots = np.array([-1.0, -0.4, 0.1, 0.5, 1.2, 2.0])
    spline = CubicSpline(knots, np.sin(3 * knots), bc_type="natural")
    s = np.linspace(-1, 2, 50)
    basis = natural_basis(torch.from_numpy(s), torch.from_numpy(knots)).numpy()
    terms = np.column_stack([np.ones(50), s, basis])
    fitted = terms @ np.linalg.lstsq(terms, spline(s))[0]
    np.testing.assert_allclose(fitted, spline(s), atol=1e-9)


def test_beyond_the_last_knot_the_basis_is_linear_and_without_knots_it_is_zero():
    s = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)
    a, b, c = natural_basis(s, torch.linspace(-1, 2, 6))
    torch.testing.assert_close(c - b, b - a)
    assert not natural_basis(s, torch.zeros(6)).any()


def test_the_clock_is_the_time_or_its_logarithm():
    time = torch.tensor([-1.0, 0.0, 3.0])
    assert standard_time(time, torch.zeros(()), 1.0, 2.0).tolist() == [-1.0, -0.5, 1.0]
    logged = standard_time(time, torch.ones(()), 0.0, 1.0)
    torch.testing.assert_close(logged, torch.tensor([0.0, 0.0, np.log(4.0)]).float())


@pytest.mark.parametrize("name", COURSES)
def test_held_out_tasks_choose_the_form_of_the_course(name):
    rows, y = patients(COURSES[name])
    form = choose_form(rows, y, random_slope=True, process=False, curves=True)
    if name == "straight":
        assert form.is_straight
    elif name == "curve":
        assert form.bends
        assert not form.own
    elif name == "own":
        assert form.own
    else:
        assert form.log
    assert not choose_form(rows, y, random_slope=True, process=False, curves=False).log


def test_a_multiple_of_the_curve_is_learned_from_a_few_rows():
    """After three rows, the error of the multiple is far below that of the mean curve alone."""
    rows, y = patients(COURSES["own"])
    errors = {}
    for own in (False, True):
        form = Form(bends=True, own=own)
        train, test = next(Design.of(rows, y, random_slope=True, log=False).folds())
        errors[own] = np.nanmean(fit_course(train, form).errors(test), axis=0)
    assert errors[True][-1] < 0.7 * errors[False][-1]


def test_a_bent_course_is_predicted_before_the_first_value():
    rows, y = patients(COURSES["curve"])
    algorithm = DeepMixedEffects(n_deep=0, deep_mean=False, trees=False, correction=False)
    errors = {}
    for curves in (False, True):
        model = MetaRegressor(algorithm.set_params(curves=curves), max_steps=1, random_state=0)
        groups, time = rows.codes.numpy(), rows.time.numpy()
        model.fit(np.zeros((len(y), 1)), y, groups=groups, time=time)
        asked = np.array([0.0, 2.0, 4.0, 8.0])
        predicted = model.unadapted().predict(np.zeros((4, 1)), time=asked)
        errors[curves] = np.abs(predicted - COURSES["curve"](0, 1, asked)).max()
    assert errors[True] < 0.4 * errors[False]
