"""Loading of saved files of any kind."""

import os
from typing import Any

from ehrmeta import estimators, treatment
from ehrmeta.errors import BundleError
from ehrmeta.estimators.files import Saved, fits_together
from ehrmeta.persistence import read_bundle

KINDS: dict[str, tuple[type[Saved], ...]] = {  # by metadata["kind"], then by name of the class
    "model": (estimators.MetaRegressor, estimators.MetaClassifier),
    "adapted": (estimators.Adapted,),
    "calibrated": (estimators.ConformalRegressor, estimators.ConformalClassifier),
    "calibrated adapted": (estimators.ConformalAdapted, estimators.ConformalClassAdapted),
    "effects": (treatment.TreatmentResponse,),
    "adapted effects": (treatment.AdaptedResponse,),
}


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Any:
    """Load a file written by ``save``: a fitted model, adapted patients, or a calibrated one.

    Each class also has a `load`, which raises an error for files of another kind.

    Parameters
    ----------
    path : str or path-like
    device : str
        Device for computing, independent of that of training.

    Returns
    -------
    MetaRegressor, MetaClassifier, Adapted, ConformalRegressor, ConformalClassifier, ...
        The saved object; on the same device its predictions are identical bit for bit.

    Raises
    ------
    BundleError
        The file is missing, damaged, of an unknown kind, or names a class that is not allowed.

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
            raise BundleError(f"its kind {kind!r} is unknown to this version of ehrmeta.")
        name = metadata["model"]["class"] if kind == "model" else metadata.get("class", "Adapted")
        classes = {cls.__name__: cls for cls in KINDS[kind]}
        if name not in classes:
            raise BundleError(f"its class {name!r} is not allowed in model files.")
        return classes[name].from_state(tensors, metadata, device)
