import pytest

from ehrmeta.data import make_cohorts, make_nof1, make_pk, make_treatment


@pytest.mark.parametrize("make", [make_cohorts, make_nof1, make_pk, make_treatment])
def test_data_print_by_shape_and_not_by_value(make):
    data = make(4, random_state=0)
    lines = repr(data).splitlines()
    assert lines[0] == f"{type(data).__name__}: {len(data.y):,} rows, 4 tasks"
    assert [line.split()[0] for line in lines[1:]] == list(vars(data))
    assert max(map(len, lines)) <= 100
    assert str(data.X[0, 0]) not in repr(data)
