"""Units convert there and back, and as the field's own conversion factors say."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta.data.units import ANALYTES, analyte_named, convert_units, is_unit, plausible_units
from ehrmeta.errors import SchemaError

# Conventional to SI factors as printed in the AMA Manual of Style, 11th ed., section 17.5.
KNOWN = [
    ("glucose", "mg/dL", "mmol/L", 0.0555),
    ("cholesterol", "mg/dL", "mmol/L", 0.0259),
    ("triglycerides", "mg/dL", "mmol/L", 0.0113),
    ("creatinine", "mg/dL", "umol/L", 88.4),
    ("bilirubin", "mg/dL", "umol/L", 17.104),
    ("urea_nitrogen", "mg/dL", "mmol/L", 0.357),
    ("uric_acid", "mg/dL", "umol/L", 59.485),
    ("calcium", "mg/dL", "mmol/L", 0.25),
    ("iron", "ug/dL", "umol/L", 0.179),
    ("cortisol", "ug/dL", "nmol/L", 27.588),
    ("thyroxine_free", "ng/dL", "pmol/L", 12.871),
    ("vitamin_d", "ng/mL", "nmol/L", 2.496),
    ("vitamin_b12", "pg/mL", "pmol/L", 0.7378),
    ("albumin", "g/dL", "g/L", 10),
    ("ast", "U/L", "ukat/L", 0.0167),
    ("oxygen_pressure", "mm[Hg]", "kPa", 0.133),
]


@pytest.mark.parametrize(("analyte", "source", "target", "factor"), KNOWN)
def test_conventional_units_become_si_units_by_the_published_factor(
    analyte, source, target, factor
):
    assert convert_units(1.0, analyte, source=source, target=target) == pytest.approx(
        factor, rel=6e-3
    )


@pytest.mark.parametrize("analyte", sorted(ANALYTES))
def test_every_pair_of_units_converts_there_and_back(analyte):
    values = np.array([0.5, 1.0, 37.0, np.nan])
    units = list(ANALYTES[analyte].units)
    for source in units:
        assert is_unit(source)
        for target in units:
            there = convert_units(values, analyte, source=source, target=target)
            back = convert_units(there, analyte, source=target, target=source)
            np.testing.assert_allclose(back, values, rtol=1e-9)


def test_scales_with_an_offset():
    assert convert_units(212.0, "temperature", source="[degF]", target="Cel") == pytest.approx(100)
    assert convert_units(7.0, "hba1c", source="%", target="mmol/mol") == pytest.approx(53, abs=0.1)


def test_every_alias_belongs_to_one_analyte():
    names = [name for key, analyte in ANALYTES.items() for name in (key, *analyte.aliases)]
    assert len(names) == len(set(names))
    assert analyte_named(" Systolic ") == "systolic_pressure"


def test_plausible_units_tell_mmol_from_mg():
    glucose = np.array([4.4, 5.2, 5.9, 7.1])
    assert plausible_units(glucose, "glucose") == ["mmol/L"]
    assert plausible_units(glucose * 18, "glucose")[0] == "mg/dL"


@pytest.mark.parametrize("wrong", [("glucos", "mg/dL"), ("glucose", "mg/dl")])
def test_unknown_names_are_errors_that_name_close_matches(wrong):
    with pytest.raises(SchemaError, match="Did you mean"):
        convert_units(1.0, wrong[0], source=wrong[1], target="mmol/L")
