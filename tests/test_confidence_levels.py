"""Intervals are 90 % by default, those of effects 95 %, and their documentation says so."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ehrmeta

NAME = "confidence_level"


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions, and public methods of public classes, of every room."""
    rooms = [m.name for m in pkgutil.walk_packages(ehrmeta.__path__, "ehrmeta.") if m.ispkg]
    for room in ["ehrmeta", *rooms]:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield name, value
            elif inspect.isclass(value):
                for method, function in inspect.getmembers(value, callable):
                    if not method.startswith("_"):
                        yield f"{name}.{method}", function


def with_default(function: Callable[..., Any]) -> bool:
    names = getattr(inspect.unwrap(function), "__kwdefaults__", None) or {}
    return NAME in names


FOUND = {name: function for name, function in public_callables() if with_default(function)}


@pytest.mark.parametrize("name", FOUND)
def test_the_default_level_is_90_percent_or_95_of_effects_and_documented(name: str) -> None:
    function = FOUND[name]
    default = inspect.signature(function).parameters[NAME].default
    in_treatment = function.__module__.startswith("ehrmeta.treatment.")
    is_response = name.endswith(
        (".dose_response", "Doses.predict_frame", "Compartment.predict_frame")
    )
    is_effect = in_treatment and not is_response
    assert default == (0.95 if is_effect else 0.9)
    words = " ".join((inspect.getdoc(function) or "").split())
    expected = (f"{NAME} : float, default {default:g}", f"{100 * default:g} %")
    assert any(phrase in words for phrase in expected)


def test_the_search_finds_functions_methods_and_displays() -> None:
    assert {"k_shot_curve", "Adapted.predict_interval", "TreatmentResponse.ate_interval"} <= set(
        FOUND
    )
    assert {"ForestDisplay.from_scores", "AdaptedDoses.effect_interval"} <= set(FOUND)
