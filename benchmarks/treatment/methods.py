"""What the treatment benchmark runs: the field's learners, and ours at its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.treatment.peers import BASES, CausalForest, EffectModel, MetaLearner
from ehrmeta.errors import DataWarning
from ehrmeta.treatment import TreatmentResponse

__all__ = ["METHODS", "OURS", "TUNED", "Method", "fit_ours"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

OURS = "ehrmeta"
TUNED = ("X tuned boosting", "R tuned boosting")


@dataclass(frozen=True)
class Method:
    """A learner of effects.

    Parameters
    ----------
    make : callable, optional
        Returns an `EffectModel`; None for ours, which also knows tasks.
    package : str
        What must be installed beside this package.
    """

    make: Callable[[], EffectModel] | None
    package: str = ""


def _peer(kind: str, base: str) -> Method:
    return Method(lambda: MetaLearner(kind, BASES[base]))


METHODS: dict[str, Method] = {
    OURS: Method(None),
    "zero": _peer("zero", "ridge"),
    "constant (AIPW)": _peer("constant", "boosting"),
    **{
        f"{kind} {base}": _peer(kind, base)
        for base in ("ridge", "boosting")
        for kind in ("S", "T", "X", "DR", "R")
    },
    **{name: _peer(name[0], "tuned boosting") for name in TUNED},
    "causal forest": Method(CausalForest, "econml"),
}


def fit_ours(X: Array, y: Array, t: Any, **settings: Any) -> TreatmentResponse:
    """Our default; `settings` are arguments of its fit, and `propensity` of the model."""
    model = TreatmentResponse(propensity=settings.pop("probability", None), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # clipped rows: counted in the records
        return model.fit(X, y, treatment=t, **settings)
