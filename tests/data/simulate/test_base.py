import numpy as np
import pytest

from ehrmeta.data import make_cohorts, make_nof1, make_pk, make_treatment
from ehrmeta.data.simulate._base import draw_sites


@pytest.mark.parametrize("make", [make_cohorts, make_nof1, make_pk, make_treatment])
def test_data_print_by_shape_and_not_by_value(make):
    data = make(4, random_state=0)
    lines = repr(data).splitlines()
    assert lines[0] == f"{type(data).__name__}: {len(data.y):,} rows, 4 tasks"
    assert [line.split()[0] for line in lines[1:]] == list(vars(data))
    assert max(map(len, lines)) <= 100
    assert str(data.X[0, 0]) not in repr(data)


def test_sizes_of_sites_are_uniform_between_the_bounds():
    sites = draw_sites(4000, (2, 5), np.random.default_rng(0))
    sizes = np.bincount(sites)
    assert (np.diff(sites) >= 0).all()
    assert len(sizes) == 4000
    np.testing.assert_allclose(np.bincount(sizes, minlength=6)[2:] / 4000, 0.25, atol=0.03)
