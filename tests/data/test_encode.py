import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ehrmeta.data import Encoder, Feature, read_columns
from ehrmeta.errors import DataError, DataWarning, SchemaError

AGE = Feature("age", unit="a")
SEX = Feature("sex", "categorical", "static")
CRP = Feature("crp", role="measured", unit="mg/L")
STAGE = Feature("stage", "categorical", "measured")
ALL = (AGE, SEX, CRP, STAGE)


def columns(n: int = 60) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    crp = random.lognormal(size=n)
    crp[::7] = np.nan
    return {
        "age": random.normal(60, 10, n),
        "sex": np.array(["f", "m", None] * (n // 3), dtype=object),
        "crp": crp,
        "stage": np.array(["I", "II"] * (n // 2), dtype=object),
    }


def test_the_scale_is_median_and_iqr() -> None:
    values = columns()["age"]
    fixed, measured = Encoder.fit({"age": values}, (AGE,)).transform({"age": values})
    low, middle, high = np.percentile(values, [25, 50, 75])
    np.testing.assert_allclose(fixed[:, 0], (values - middle) / ((high - low) / 1.349), rtol=1e-5)
    assert fixed.dtype == measured.dtype == np.float32
    assert measured.shape == (60, 0)


def test_a_rare_binary_feature_falls_back_to_the_standard_deviation() -> None:
    values = np.array([0.0] * 9 + [1.0])
    fixed, _ = Encoder.fit({"x": values}, (Feature("x", "binary"),)).transform({"x": values})
    assert fixed[:, 0] == pytest.approx(values / 0.3)


def test_features_of_a_block_keep_their_differences() -> None:
    image = tuple(Feature(f"x{i}", block="image") for i in range(3))
    random = np.random.default_rng(0)
    values = {
        "x0": random.normal(size=50),
        "x1": np.full(50, 2.0),  # never varies, and is no scale of its own
        "x2": random.normal(1, 9, size=50),
        "age": random.normal(60, 10, 50),
    }
    fixed, _ = Encoder.fit(values, (*image, AGE)).transform(values)
    raw = np.column_stack([values[f.name] for f in image])
    low, middle, high = np.percentile(raw, [25, 50, 75])
    expected = np.clip((raw - middle) / ((high - low) / 1.349), -8, 8)
    np.testing.assert_allclose(fixed[:, :3], expected, rtol=1e-5, atol=1e-6)
    alone, _ = Encoder.fit(values, (AGE,)).transform(values)
    np.testing.assert_array_equal(fixed[:, 3:], alone)


def test_a_block_marks_what_is_missing_in_each_of_its_features() -> None:
    block = (Feature("a", block="lead"), Feature("b", block="lead"))
    values = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([np.nan, 2.0, 5.0])}
    encoder = Encoder.fit(values, block)
    assert encoder.fixed_names == ("a", "b", "b missing")
    fixed, _ = encoder.transform(values)
    assert fixed[0].tolist()[1:] == [0.0, 1.0]


def test_values_far_out_are_clipped() -> None:
    encoder = Encoder.fit(columns(), ALL)
    wild = columns() | {"age": np.full(60, 1e300)}
    assert encoder.transform(wild)[0][:, 0].tolist() == [8.0] * 60


@pytest.mark.parametrize("constant", [[3.0, 3.0, 3.0], [np.nan] * 3, [3.0, np.nan, 3.0]])
def test_a_constant_column_becomes_zero_whatever_comes_later(constant: list[float]) -> None:
    encoder = Encoder.fit({"x": np.array(constant)}, (Feature("x"),))
    assert not encoder.transform({"x": np.array([3.0, 99.0, -1.0])})[0][:, 0].any()


def test_a_missing_value_is_zero_and_marked_when_training_had_some() -> None:
    gaps = np.array([1.0, 2.0, 3.0, np.nan])
    with_gaps = Encoder.fit({"x": gaps}, (Feature("x"),))
    assert with_gaps.fixed_names == ("x", "x missing")
    assert with_gaps.transform({"x": gaps})[0][3].tolist() == [0, 1]
    without = Encoder.fit({"x": gaps[:3]}, (Feature("x"),))
    assert without.fixed_names == ("x",)
    assert without.transform({"x": gaps})[0][3].tolist() == [0]


def test_categories_are_one_hot_with_other_and_missing() -> None:
    encoder = Encoder.fit(columns(), (SEX,))
    assert encoder.fixed_names == ("sex=f", "sex=m", "sex other", "sex missing")
    cells = np.array(["m", "unseen", None], dtype=object)
    with pytest.warns(DataWarning, match="'sex': 1 with an unknown level, of 3 rows"):
        fixed, _ = encoder.transform({"sex": cells})
    assert fixed.tolist() == [[0, 1, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 1]]


def test_missing_is_the_average_level_when_training_had_none() -> None:
    encoder = Encoder.fit({"sex": np.array(["f", "m", "m", "m"] * 10, dtype=object)}, (SEX,))
    assert encoder.fixed_names == ("sex=f", "sex=m", "sex other")
    with pytest.warns(DataWarning, match="'sex': 1 with a missing value, as no training row had"):
        fixed, _ = encoder.transform({"sex": np.array([None, "f"], dtype=object)})
    assert fixed.tolist() == [[0.25, 0.75, 0], [1, 0, 0]]


def test_one_warning_counts_the_rows_of_every_column() -> None:
    encoder = Encoder.fit(columns(), ALL)
    cells = {name: values[:3].copy() for name, values in columns().items()}
    cells |= {"sex": np.array(["F ", "f", "x"], object), "stage": np.array(["I", "I", "V"], object)}
    with pytest.warns(DataWarning) as caught:
        encoder.transform(cells)
    (message,) = [str(warning.message) for warning in caught]
    assert (
        "'sex': 2 with an unknown level, 1 of which differ from a known one in spelling" in message
    )
    assert "'stage': 1 with an unknown level" in message
    assert "'age'" not in message


def test_a_column_without_a_known_level_is_refused_with_a_hint() -> None:
    encoder = Encoder.fit(columns(), (SEX,))
    for cells, n in ((["F", "M ", None], 2), (["male", "female"], 0)):
        with pytest.raises(DataError, match=f"'sex' holds 2 levels in 2 rows, .*; {n} rows differ"):
            encoder.transform({"sex": np.array(cells, object)})


def test_merged_levels_are_counted_at_the_fit_and_known_later() -> None:
    village = np.array([f"village {i // 2}" for i in range(60)], object)
    cells = columns() | {"village": village}
    feature = Feature("village", "categorical")
    with pytest.warns(DataWarning, match=r"are merged \('village': 30 in 60 rows\)") as caught:
        encoder = Encoder.fit(cells, (SEX, feature))
    assert not any("village 1" in str(warning.message) for warning in caught)
    assert encoder.fixed_names[-1] == "village other"
    fixed, _ = encoder.transform(cells | {"village": village[::-1]})
    assert (fixed[:, -1] == 1.0).all()


def test_a_file_without_rare_levels_predicts_them_as_unknown() -> None:
    cells = {"sex": np.array(["f"] * 30 + ["m"] * 10, dtype=object)}
    encoder, left_out = Encoder.fit(cells, (SEX,)).without_rare_levels()
    saved = json.loads(json.dumps(encoder.to_dict()))
    assert '"m"' not in json.dumps(saved)
    assert '"f"' in json.dumps(saved)
    assert left_out == {"sex": 1}
    with pytest.warns(DataWarning, match="'sex': 1 with an unknown level"):
        fixed, _ = Encoder.from_dict(saved).transform({"sex": np.array(["f", "m"], object)})
    assert fixed.tolist() == [[1, 0, 0], [0.75, 0.25, 0]]
    both = np.array(["m", "x"], object)  # may be levels of the fit, so they are not refused
    with pytest.warns(DataWarning, match="'sex': 2 with an unknown level"):
        Encoder.from_dict(saved).transform({"sex": both})


def test_files_of_older_versions_encode_as_they_did() -> None:
    state = Encoder.fit(columns(), (SEX, STAGE)).to_dict()
    for coding in state["codings"]:
        del coding["shares"], coding["weights"]
    cells = {name: np.array(["x", "y", None], object) for name in ("sex", "stage")}
    fixed, measured = Encoder.from_dict(state).transform(cells)
    assert fixed.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(measured, [[0, 0], [0, 0], [np.nan, np.nan]])


def test_whole_numbers_are_the_same_category_as_int_float_or_bool() -> None:
    feature = Feature("code", "categorical")
    encoder = Encoder.fit({"code": np.array([0, 1] * 10)}, (feature,))
    expected = encoder.transform({"code": np.array([0, 1])})[0]
    for other in (np.array([0.0, 1.0]), np.array([False, True]), np.array(["0", "1"], object)):
        np.testing.assert_array_equal(encoder.transform({"code": other})[0], expected)


def test_measured_features_are_separate_and_missing_where_missing() -> None:
    encoder = Encoder.fit(columns(), ALL)
    assert encoder.fixed_names == ("age", "sex=f", "sex=m", "sex other", "sex missing")
    assert encoder.measured_names == ("crp", "stage=I", "stage=II")
    cells = {name: values[:2].copy() for name, values in columns().items()}
    cells["stage"][1] = None
    _, measured = encoder.transform(cells)
    np.testing.assert_array_equal(np.isnan(measured), [[True, False, False], [False, True, True]])


@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-1e6, 1e6)),
    st.lists(st.sampled_from(["f", "m", "x", None]), min_size=8, max_size=8),
)
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.DataWarning")  # unknown levels
def test_transform_looks_at_no_other_row(numbers: NDArray[np.float64], text: list[Any]) -> None:
    encoder = Encoder.fit(columns(), ALL)
    cells = np.array(text, dtype=object)
    table = {"age": numbers, "sex": cells, "crp": numbers, "stage": np.full(8, "x", object)}
    fixed, measured = encoder.transform(table)
    for row in range(8):
        alone = encoder.transform({name: values[[row]] for name, values in table.items()})
        np.testing.assert_array_equal(alone[0][0], fixed[row])
        np.testing.assert_array_equal(alone[1][0], measured[row])


def test_an_encoder_survives_json_exactly() -> None:
    encoder = Encoder.fit(columns(), ALL)
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    for before, after in zip(encoder.transform(columns()), again.transform(columns()), strict=True):
        np.testing.assert_array_equal(before, after)


def test_pandas_polars_and_numpy_encode_the_same() -> None:
    cells = {name: values.tolist() for name, values in columns().items()}
    cells["crp"] = [None if np.isnan(v) else v for v in cells["crp"]]
    encoder = Encoder.fit(columns(), ALL)
    expected = encoder.transform(columns())
    for frame in (pd.DataFrame(cells), pd.DataFrame(cells).convert_dtypes(), pl.DataFrame(cells)):
        for got, wanted in zip(encoder.transform(read_columns(frame)), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"agee": np.zeros(2)}, "no column 'age'. Did you mean 'agee'"),
        ({"age": np.array(["a", "b"], object)}, "'age' is a numeric feature, but holds text"),
        ({"age": np.zeros(2, "datetime64[ns]")}, "but holds dates"),
        ({"age": np.array([1.0, np.inf])}, "'age' holds infinity in 1 of"),
    ],
)
def test_columns_that_do_not_fit_are_named(cells: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Encoder.fit({"age": np.arange(2.0)}, (AGE,)).transform(cells)


def test_dates_are_no_category() -> None:
    with pytest.raises(SchemaError, match="'sex' holds dates"):
        Encoder.fit({"sex": np.zeros(2, "datetime64[ns]")}, (SEX,))
