from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.cohorts.cells import BAYES_RULE, methods_of, supports
from benchmarks.cohorts.data import CohortData


def test_supports_and_queries_are_of_the_site_and_do_not_meet():
    groups = np.repeat([0, 1, 2], [30, 5, 40])
    data = CohortData(pd.DataFrame({"x": np.zeros(75)}), np.arange(75) % 2, groups)
    support, query = supports(data, np.array([0, 1]), 10, draw=0, seed=0)
    assert support[groups == 0].sum() == 10
    assert query[groups == 0].sum() == 20
    assert not (support & query).any()
    assert not support[groups > 0].any(), "5 rows hold no 10, and site 2 was not requested"
    assert not query[groups > 0].any()
    other, _ = supports(data, np.array([0]), 10, draw=1, seed=0)
    assert (support != other).any()


def test_rows_in_order_are_seen_from_the_first():
    groups = np.zeros(8, int)
    data = CohortData(pd.DataFrame({"x": np.zeros(8)}), np.arange(8) % 2, groups, ordered=True)
    support, query = supports(data, np.array([0]), 3, draw=0, seed=0)
    np.testing.assert_array_equal(np.flatnonzero(support), [0, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(query), np.arange(3, 8))


def test_the_bayes_rule_is_there_where_the_truth_is():
    assert BAYES_RULE in methods_of("make_cohorts .5")
    assert BAYES_RULE not in methods_of("heart")
