"""Files of every format so far load, and predict what they predicted when they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ehrmeta import load
from ehrmeta.persistence.bundle import FORMAT_VERSION
from tests.persistence.make_golden import FOLDER, forecasts

FILES = sorted(FOLDER.glob("*.ehrmeta"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_predicts_what_it_did(path: Path) -> None:
    golden = json.loads(path.with_suffix(".json").read_text())
    predicted = forecasts(load(path), golden["columns"])
    for name, expected in golden["forecasts"].items():
        np.testing.assert_allclose(predicted[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_format_has_its_golden_files() -> None:
    versions = {int(path.stem.split("-")[0]) for path in FILES}
    assert versions == set(range(1, FORMAT_VERSION + 1))
