"""Units of common labs and vital signs as UCUM codes, with conversion and plausible ranges.

Mass concentrations are converted to molar concentrations by ``mmol/L = 10 mg/dL / M``, with the
molar mass M in g/mol (atomic weights of IUPAC 2021). UCUM: https://ucum.org. Plausible ranges are
wider than reference intervals: values outside are typing errors or have another unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import SchemaError, did_you_mean


@dataclass(frozen=True)
class Analyte:
    """A laboratory value or vital sign.

    Parameters
    ----------
    low, high : float
        Plausible range in the first unit.
    units : mapping of str to (float, float)
        For each UCUM unit, factor and offset of the conversion to the first unit:
        ``first = factor * value + offset``.
    aliases : tuple of str
        Other column names.
    """

    low: float
    high: float
    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


def _mass(
    molar_mass: float, low: float, high: float, *aliases: str, units: str = "mg/dL mmol/L"
) -> Analyte:
    """An analyte with a unit of mass and a molar unit."""
    mass, molar = units.split()
    per_mass = {"mg/dL": 1e-2, "ug/dL": 1e-5, "ng/dL": 1e-8, "ng/mL": 1e-6, "pg/mL": 1e-9}
    per_molar = {"mmol/L": 1e-3, "umol/L": 1e-6, "nmol/L": 1e-9, "pmol/L": 1e-12}
    factor = per_molar[molar] * molar_mass / per_mass[mass]
    return Analyte(low, high, {mass: (1.0, 0.0), molar: (factor, 0.0)}, aliases)


def _scaled(low: float, high: float, units: Mapping[str, float], *aliases: str) -> Analyte:
    """An analyte whose units differ by a factor."""
    return Analyte(low, high, {unit: (factor, 0.0) for unit, factor in units.items()}, aliases)


_PER_LITRE = {"g/dL": 1.0, "g/L": 0.1}
_MONOVALENT = {"mmol/L": 1.0, "meq/L": 1.0}
_ENZYME = {"U/L": 1.0, "ukat/L": 60.0}  # one katal is 6e7 enzyme units
_COUNT = {"10*3/uL": 1.0, "10*9/L": 1.0, "/uL": 1e-3}
_PRESSURE = {"mm[Hg]": 1.0, "kPa": 7.500617}

ANALYTES: dict[str, Analyte] = {
    "glucose": _mass(180.156, 10, 2000, "glu", "fasting_glucose", "blood_glucose"),
    "cholesterol": _mass(386.65, 20, 1500, "chol", "total_cholesterol"),
    "hdl": _mass(386.65, 3, 250, "hdl_cholesterol", "hdlc"),
    "ldl": _mass(386.65, 3, 1000, "ldl_cholesterol", "ldlc"),
    "triglycerides": _mass(885.4, 10, 15_000, "trig", "tg"),
    "creatinine": _mass(113.12, 0.05, 50, "crea", "creat", units="mg/dL umol/L"),
    "bilirubin": _mass(584.66, 0.05, 80, "bili", "total_bilirubin", units="mg/dL umol/L"),
    "urea_nitrogen": _mass(28.014, 1, 300, "bun"),
    "uric_acid": _mass(168.11, 0.5, 40, "urate", units="mg/dL umol/L"),
    "calcium": _mass(40.078, 3, 20, "ca"),
    "magnesium": _mass(24.305, 0.3, 15, "mg"),
    "phosphate": _mass(30.974, 0.3, 25, "phos", "phosphorus"),
    "lactate": _mass(90.08, 1, 350, "lac"),
    "iron": _mass(55.845, 2, 3000, "fe", units="ug/dL umol/L"),
    "ammonia": _mass(17.031, 2, 3000, units="ug/dL umol/L"),
    "cortisol": _mass(362.46, 0.1, 300, units="ug/dL nmol/L"),
    "thyroxine_free": _mass(776.87, 0.05, 20, "ft4", units="ng/dL pmol/L"),
    "vitamin_d": _mass(400.64, 1, 400, "25_oh_vitamin_d", units="ng/mL nmol/L"),
    "vitamin_b12": _mass(1355.37, 30, 10_000, "b12", units="pg/mL pmol/L"),
    "folate": _mass(441.4, 0.2, 100, units="ng/mL nmol/L"),
    "digoxin": _mass(780.94, 0.05, 20, units="ng/mL nmol/L"),
    "sodium": _scaled(80, 220, _MONOVALENT, "na"),
    "potassium": _scaled(0.8, 15, _MONOVALENT, "k"),
    "chloride": _scaled(50, 170, _MONOVALENT, "cl"),
    "bicarbonate": _scaled(2, 70, _MONOVALENT, "hco3"),
    "albumin": _scaled(0.3, 9, _PER_LITRE, "alb"),
    "total_protein": _scaled(1, 20, _PER_LITRE, "protein"),
    "hemoglobin": _scaled(1, 30, _PER_LITRE | {"mmol/L": 1.6114}, "haemoglobin", "hb", "hgb"),
    "hematocrit": _scaled(5, 80, {"%": 1.0, "L/L": 100.0}, "haematocrit", "hct"),
    "hba1c": Analyte(
        2, 25, {"%": (1.0, 0.0), "mmol/mol": (0.09148, 2.152)}, ("a1c", "glycated_hemoglobin")
    ),  # master equation between NGSP and IFCC: Hoelzel 2004, doi:10.1373/clinchem.2003.024802
    "crp": _scaled(0, 800, {"mg/L": 1.0, "mg/dL": 10.0}, "c_reactive_protein"),
    "alt": _scaled(1, 20_000, _ENZYME, "alanine_aminotransferase", "sgpt"),
    "ast": _scaled(1, 20_000, _ENZYME, "aspartate_aminotransferase", "sgot"),
    "alkaline_phosphatase": _scaled(1, 15_000, _ENZYME, "alp", "alk_phos"),
    "platelets": _scaled(1, 3000, _COUNT, "plt", "platelet"),
    "leukocytes": _scaled(0.01, 800, _COUNT, "wbc", "white_cells"),
    "inr": _scaled(0.4, 25, {"1": 1.0}),
    "systolic_pressure": _scaled(30, 320, _PRESSURE, "sbp", "systolic"),
    "diastolic_pressure": _scaled(10, 220, _PRESSURE, "dbp", "diastolic"),
    "heart_rate": _scaled(10, 350, {"/min": 1.0}, "hr", "pulse"),
    "respiratory_rate": _scaled(2, 100, {"/min": 1.0}, "rr"),
    "temperature": Analyte(
        24, 46, {"Cel": (1.0, 0.0), "[degF]": (5 / 9, -160 / 9), "K": (1.0, -273.15)}, ("temp",)
    ),
    "oxygen_saturation": _scaled(20, 100, {"%": 1.0, "1": 100.0}, "spo2", "sao2"),
    "oxygen_pressure": _scaled(10, 800, _PRESSURE, "pao2", "po2"),
    "carbon_dioxide_pressure": _scaled(5, 250, _PRESSURE, "paco2", "pco2"),
    "weight": _scaled(0.3, 500, {"kg": 1.0, "g": 1e-3, "[lb_av]": 0.45359237}, "body_weight"),
    "height": _scaled(20, 260, {"cm": 1.0, "m": 100.0, "[in_i]": 2.54}, "body_height"),
    "bmi": _scaled(5, 150, {"kg/m2": 1.0}, "body_mass_index"),
    "age": _scaled(0, 125, {"a": 1.0, "mo": 1 / 12, "d": 1 / 365.25}, "age_years"),
}

_NAMES = {alias: name for name, analyte in ANALYTES.items() for alias in (name, *analyte.aliases)}
_UNITS = {unit for analyte in ANALYTES.values() for unit in analyte.units} | {
    "s", "min", "h", "wk", "mg", "ug", "mL", "L", "mg/kg", "mg/d", "mg/wk", "mL/min",
    "mL/min/{1.73_m2}", "U/mL", "mg/L", "ug/L", "ng/L", "ug/mL", "mU/L", "{score}", "[IU]/mL",
}  # fmt: skip


def analyte_named(column: str) -> str | None:
    """The analyte that a column name stands for, or None.

    Examples
    --------
    >>> analyte_named("Total Cholesterol"), analyte_named("visit")
    ('cholesterol', None)
    """
    return _NAMES.get(column.strip().lower().replace(" ", "_").replace("-", "_"))


def is_unit(unit: str) -> bool:
    """Whether a UCUM code is known, or is an annotation in braces."""
    return unit in _UNITS or (unit.startswith("{") and unit.endswith("}"))


def mixed_units(values: NDArray[Any]) -> list[str]:
    """Units in a text column, if it holds two or more different units and nothing else.

    Examples
    --------
    >>> mixed_units(np.array(["mg/dL", "mmol/l", None], dtype=object))
    ['mg/dL', 'mmol/l']
    """
    if values.dtype != object:
        return []
    names = sorted({str(value).strip() for value in pd.unique(values[~pd.isna(values)])})
    if len(names) < 2 or not all("/" in name for name in names):
        return []
    known = {unit.lower() for unit in _UNITS}
    return names if all(name.lower() in known for name in names) else []


def convert_units(
    values: ArrayLike, analyte: str, *, source: str, target: str
) -> NDArray[np.float64]:
    """Convert between two UCUM units of an analyte.

    Parameters
    ----------
    values : array-like
    analyte : str
        A key or an alias in `ANALYTES`.
    source, target : str
        Case-sensitive UCUM codes.

    Raises
    ------
    SchemaError
        The analyte or a unit is unknown.

    Examples
    --------
    >>> convert_units([180.0], "glucose", source="mg/dL", target="mmol/L").round(2)
    array([9.99])
    >>> convert_units([98.6], "temperature", source="[degF]", target="Cel").round(2)
    array([37.])
    """
    name = analyte_named(analyte)
    if name is None:
        raise SchemaError(f"unknown analyte '{analyte}'. {did_you_mean(analyte, _NAMES)}")
    units = ANALYTES[name].units
    for unit in (source, target):
        if unit not in units:
            raise SchemaError(f"unknown unit '{unit}' of {name}. {did_you_mean(unit, units)}")
    (factor, offset), (target_factor, target_offset) = units[source], units[target]
    first = factor * np.asarray(values, np.float64) + offset
    converted: NDArray[np.float64] = (first - target_offset) / target_factor
    return converted


def plausible_units(values: NDArray[np.float64], analyte: str) -> list[str]:
    """Units in which the middle half of the values is plausible for the analyte."""
    known = ANALYTES[analyte]
    low, high = np.nanquantile(values, (0.25, 0.75))
    return [
        unit
        for unit, (factor, offset) in known.units.items()
        if known.low <= factor * low + offset and factor * high + offset <= known.high
    ]
