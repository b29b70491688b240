"""Laws of the progress before the training steps: at once, in order, and only if wanted."""

import numpy as np
import pytest

from ehrmeta import MetaRegressor
from ehrmeta.training.progress import stage


def test_a_stage_is_named_before_it_begins(capsys):
    with stage("fitting", shown=True):
        assert "fitting [00:00]" in capsys.readouterr().err
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize("verbose", [True, False])
def test_fit_names_its_stages_if_it_is_verbose(verbose, capsys):
    X, y = np.arange(60.0)[:, None], np.arange(60.0) % 7
    MetaRegressor(verbose=verbose).fit(X, y, groups=np.arange(60) // 3)
    shown = capsys.readouterr().err
    trees, start = shown.find("testing boosted trees"), shown.find("fitting start values")
    assert 0 <= trees < start if verbose else not shown
