"""Opening a saved file, whatever it holds."""

import os
from typing import Any

from ehrmeta.errors import BundleError
from ehrmeta.estimators import (
    Adapted,
    ConformalAdapted,
    ConformalClassAdapted,
    ConformalClassifier,
    ConformalRegressor,
    MetaClassifier,
    MetaRegressor,
)
from ehrmeta.estimators.files import Saved, fits_together
from ehrmeta.persistence import read_bundle
from ehrmeta.treatment import AdaptedResponse, TreatmentResponse

KINDS: dict[str, tuple[type[Saved], ...]] = {  # by metadata["kind"], then by name of the class
    "model": (MetaRegressor, MetaClassifier),
    "adapted": (Adapted,),
    "calibrated": (ConformalRegressor, ConformalClassifier),
    "calibrated adapted": (ConformalAdapted, ConformalClassAdapted),
    "effects": (TreatmentResponse,),
    "adapted effects": (AdaptedResponse,),
}


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Any:
    """Open a file that ``save`` wrote: a fitted model, adapted patients, or a calibrated one.

    Each class has a `load` of its own, which refuses files of another kind.

    Parameters
    ----------
    path : str or path-like
    device : str
        Where to compute, wherever the model was trained.

    Returns
    -------
    MetaRegressor, MetaClassifier, Adapted, ConformalRegressor, ConformalClassifier, ...
        What the file holds; it predicts bit for bit what it did, on the same device.

    Raises
    ------
    BundleError
        The file is missing, damaged, of another kind, or names a class that files may not hold.

    Examples
    --------
    >>> import tempfile
    >>> from ehrmeta import MetaRegressor, load, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=groups)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/sinusoid.ehrmeta")
    ...     loaded = load(f"{folder}/sinusoid.ehrmeta")
    >>> type(loaded).__name__
    'MetaRegressor'
    """
    tensors, metadata = read_bundle(path)
    with fits_together(path):
        kind = metadata["kind"]
        if kind not in KINDS:
            raise BundleError(f"it holds {kind!r}, which this version of ehrmeta does not know.")
        name = metadata["model"]["class"] if kind == "model" else metadata.get("class", "Adapted")
        classes = {made.__name__: made for made in KINDS[kind]}
        if name not in classes:
            raise BundleError(f"it names the class {name!r}, which no model file may hold.")
        return classes[name].from_state(tensors, metadata, device)
