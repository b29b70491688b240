"""An adapted patient: effects narrow to the patient's own slope."""

import numpy as np
import pytest

from ehrmeta.errors import DataWarning
from tests.treatment.dosing.patients import adapted, fitted


def test_more_rows_bring_the_slope_to_the_patients_own_and_narrow_the_band() -> None:
    rng = np.random.default_rng(2)
    dose = np.tile([1.0, 2.0, 3.0, 4.0], 10)
    y = 5 + 3.5 * dose + rng.normal(0, 0.5, 40)
    errors_and_widths = []
    for k in (2, 8, 40):
        one = fitted().adapt(np.zeros((k, 1)), y[:k], treatment=dose[:k], time=np.arange(k))
        low, high = one.effect_interval([[0.0]], T0=1, T1=2)[0]
        errors_and_widths.append((abs(one.effect([[0.0]], T0=1, T1=2)[0] - 3.5), high - low))
    errors, widths = np.transpose(errors_and_widths)
    assert errors[-1] < 0.2 < errors[0]
    assert (np.diff(widths) < 0).all()


def test_one_dose_only_is_flagged() -> None:
    with pytest.warns(DataWarning, match="1 of 1 patients .* one dose only"):
        one = fitted().adapt([[0.0]] * 2, [12.0, 13.0], treatment=[2, 2], time=[0, 1])
    assert one.one_dose_.tolist() == [True]
    assert adapted().one_dose_.tolist() == [False]


def test_effects_of_a_line_are_proportional_to_the_step_and_change_sign_with_it() -> None:
    one = adapted()
    step = one.effect([[0.0]], T0=1, T1=2)
    np.testing.assert_allclose(one.effect([[0.0]], T0=1, T1=4), 3 * step)
    np.testing.assert_allclose(one.effect([[0.0]], T0=2, T1=1), -step)
    low, high = one.effect_interval([[0.0]], T0=1, T1=2)[0]
    assert 0.5 * (low + high) == pytest.approx(step[0])


def test_a_frame_holds_the_response_to_one_dose_per_row() -> None:
    one, dose = adapted(), np.array([3.0, 1.0])
    frame = one.predict_frame([[0.0]] * 2, treatment=dose, confidence_level=0.8)
    assert list(frame) == ["dose", "response", "lower", "upper"]
    for row in range(2):
        curve = one.dose_response([[0.0]], dose[[row]], confidence_level=0.8)
        expected = curve[["dose", "response", "low", "high"]].to_numpy()
        np.testing.assert_allclose(frame.iloc[[row]].to_numpy(), expected)
