"""Figures of a hyper-parameter study as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np

from ehrmeta.tuning.summary import study_plots


def save_study_pictures(study: Any, folder: str | Path) -> list[Path]:
    """Save the plots of history, importance, slices and parallel coordinates as PNG files.

    Parameters
    ----------
    study : optuna.Study
        From ``tune(...).study``.
    folder : str or Path
        Created if missing.

    Returns
    -------
    list of Path

    Examples
    --------
    >>> import tempfile
    >>> from ehrmeta import MAML, MetaRegressor, make_sinusoid, tune
    >>> from ehrmeta.report import save_study_pictures
    >>> X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    >>> model = MetaRegressor(MAML(), max_steps=2, random_state=0)
    >>> space = ["algorithm__inner_lr"]
    >>> tuned = tune(model, X, y, groups=groups, n_trials=2, space=space, cv=2, refit=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_study_pictures(tuned.study, folder)]
    ['history.png', 'slice.png', 'importance.png']
    """
    from matplotlib import pyplot, rc_context

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    with rc_context():  # Optuna changes matplotlib's style
        for kind, axes in study_plots(study):
            figure = np.ravel(axes)[0].figure
            if kind == "slice":
                figure.set_size_inches(4.5 * len(np.ravel(axes)), 4.5)
            elif kind == "parallel":
                figure.set_size_inches(10, 5.5)
            path = folder / f"{kind}.png"
            figure.savefig(path, dpi=120, bbox_inches="tight")
            pyplot.close(figure)
            saved.append(path)
    return saved
