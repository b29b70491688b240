"""Every old name warns once, says the new one, and gives the same numbers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ehrmeta
from ehrmeta import BayesianHead, MatchingNet, PrototypicalNet, RelationNet
from ehrmeta.data import make_treatment
from ehrmeta.errors import RenamedWarning
from ehrmeta.evaluation import calibration_error, paired_bootstrap
from ehrmeta.treatment import DoseResponse, TreatmentResponse
from tests.treatment.dosing.patients import fitted, lines

Call = Callable[[], Any]


def renamed_dose_at_adapt() -> tuple[Call, Call]:
    model = fitted()
    rows, at = {"X": [[0.0]] * 2, "y": [12.0, 16.0], "time": [0, 1]}, {"T0": 1, "T1": 2}
    return (
        lambda: model.adapt(**rows, dose=[1, 3]).effect([[0.0]], **at),
        lambda: model.adapt(**rows, treatment=[1, 3]).effect([[0.0]], **at),
    )


def renamed_dose_at_fit() -> tuple[Call, Call]:
    X, y, dose, patient, day = lines()
    rows, at = {"X": X, "y": y, "groups": patient, "time": day}, {"T0": 1, "T1": 2}
    return (
        lambda: DoseResponse(trend=False).fit(**rows, dose=dose).unadapted().effect([[0.0]], **at),
        lambda: (
            DoseResponse(trend=False).fit(**rows, treatment=dose).unadapted().effect([[0.0]], **at)
        ),
    )


def renamed_arm_effects(of: Callable[[TreatmentResponse], Any], **at: Any) -> tuple[Call, Call]:
    sites = make_treatment(4, n_patients=(60, 61), random_state=0)
    model = TreatmentResponse(random_state=0)
    model.fit(sites.X, sites.y, treatment=sites.treatment, groups=sites.groups)
    X = sites.X[:3]
    return lambda: of(model).marginal_effect(X, **at), lambda: of(model).arm_effects(X, **at)


def renamed_weight(score: Callable[..., Any], *data: list[float]) -> tuple[Call, Call]:
    return lambda: score(*data, weight=[2, 1]), lambda: score(*data, sample_weight=[2, 1])


def renamed_width(algorithm: type[Any], old: str) -> tuple[Call, Call]:
    return lambda: algorithm(**{old: 4}).width, lambda: algorithm(width=4).width


CASES: dict[str, Callable[[], tuple[Call, Call]]] = {
    "dose= of fit": renamed_dose_at_fit,
    "dose= of adapt": renamed_dose_at_adapt,
    "weight= of calibration_error": lambda: renamed_weight(calibration_error, [0.1, 0.6]),
    "weight= of paired_bootstrap": lambda: renamed_weight(paired_bootstrap, [4, 1], [1, 1]),
    "n_embedding= of MatchingNet": lambda: renamed_width(MatchingNet, "n_embedding"),
    "n_embedding= of PrototypicalNet": lambda: renamed_width(PrototypicalNet, "n_embedding"),
    "n_embedding= of RelationNet": lambda: renamed_width(RelationNet, "n_embedding"),
    "n_features= of BayesianHead": lambda: renamed_width(BayesianHead, "n_features"),
    "marginal_effect(X)": lambda: renamed_arm_effects(lambda model: model),
    "tasks_.marginal_effect(X)": lambda: renamed_arm_effects(
        lambda model: model.tasks_, groups=[0, 1, 2]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_old_name_warns_once_and_gives_the_same_numbers(name: str) -> None:
    old, new = CASES[name]()
    with pytest.warns(
        RenamedWarning, match="has a new name: .* works for one more release"
    ) as seen:
        before = old()
    assert len(seen) == 1
    np.testing.assert_array_equal(before, new())


def test_every_old_name_of_the_package_is_tested() -> None:
    package = Path(ehrmeta.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    warned = re.findall(r"(?<!def )(?:warn_renamed|renamed_\w+)\(\s*\"(\w+)", source)
    assert sorted(set(warned)) == sorted({re.search(r"(\w+)[=(]", name)[1] for name in CASES})
    assert source.count("message, RenamedWarning") == 1  # in `warn_renamed`
