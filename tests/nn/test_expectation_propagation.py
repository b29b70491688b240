"""Sites of expectation propagation against exact integrals and limits."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from ehrmeta.nn.expectation_propagation import Sites, matched_sites


def one(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


NONE = Sites(*one(0.0, 0.0, 0.0))


@pytest.mark.parametrize("sd", [0.3, 1.5, 3.0])
@pytest.mark.parametrize(("y", "mean"), [(1.0, -2.0), (0.0, -2.0), (1.0, 0.5)])
def test_one_row_is_met_exactly(y, mean, sd):
    sites = matched_sites(*one(y, 1.0, mean, sd**2), NONE)

    def moment(power):
        def value(eta):
            return eta**power * expit((2 * y - 1) * eta) * norm.pdf(eta, mean, sd)

        return quad(value, mean - 12 * sd, mean + 12 * sd, limit=400)[0]

    total = moment(0)
    expected = moment(1) / total
    variance = 1.0 / (1.0 / sd**2 + float(sites.precision))
    found = variance * (mean / sd**2 + float(sites.pull))
    assert found == pytest.approx(expected, abs=2e-3)
    assert variance == pytest.approx(moment(2) / total - expected**2, abs=1e-2)
    center = found**2 / variance - mean**2 / sd**2
    integral = float(sites.log_scale) + 0.5 * np.log(variance / sd**2) + 0.5 * center
    assert integral == pytest.approx(np.log(total), abs=1e-3)


def test_where_nothing_varies_the_site_is_the_curvature():
    sites = matched_sites(*one(1.0, 1.0, 0.7, 0.0), NONE)
    p = expit(0.7)
    assert float(sites.precision) == pytest.approx(p * (1 - p), rel=1e-4)
    assert float(sites.pull - 0.7 * sites.precision) == pytest.approx(1 - p, rel=1e-4)


def test_a_row_of_no_weight_says_nothing():
    sites = matched_sites(*one(1.0, 0.0, 0.7, 2.0), NONE)
    np.testing.assert_allclose([float(part) for part in sites], 0.0, atol=1e-8)
