"""Odd tables: each gives the numbers of the plain table, or a message with column and remedy."""

import datetime
import re
import uuid
import warnings
from decimal import Decimal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ehrmeta import (
    Clock,
    Feature,
    MetaClassifier,
    MetaRegressor,
    MetaSGD,
    Outcome,
    Schema,
    Table,
    TreatmentResponse,
    check_table,
)
from ehrmeta.errors import DataWarning, EhrmetaError

pytestmark = pytest.mark.slow

N, VISITS = 24, 6
FEATURES = ["age", "sex", "alt"]
SCHEMA = Schema(
    (
        Feature("age"),
        Feature("sex", kind="categorical", role="static"),
        Feature("alt", role="measured"),
    ),
    Outcome("y"),
    task="patient",
    time=Clock("day"),
)


def plain(seed=0):
    """Visits of 24 patients."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"patient": np.repeat(np.arange(N), VISITS), "day": np.tile(np.arange(VISITS) * 30, N)}
    )
    frame["age"] = np.repeat(rng.integers(30, 80, N), VISITS)
    frame["sex"] = np.repeat(np.where(np.arange(N) % 3 > 0, "f", "m"), VISITS)
    frame["alt"] = rng.integers(10, 60, len(frame)).astype(float)
    level = np.repeat(rng.normal(0, 9, N), VISITS)
    frame["y"] = (50 + level + rng.normal(0, 3, len(frame))).round(1)
    return frame


def cast(**types):
    return lambda f: f.astype(types)


def change(**columns):
    """Replace columns by functions of themselves."""
    return lambda f: f.assign(**{name: make(f[name]) for name, make in columns.items()})


def one_cell(name, value, row=3):
    def put(f):
        column = f[name].astype(object)
        column.iloc[min(row, len(f) - 1)] = value
        return f.assign(**{name: column})

    return put


START = pd.Timestamp("2020-01-01")


def dates(day):
    return START + pd.to_timedelta(day, unit="D")


# What does not change what a table says.
SAME = {
    "polars": pl.from_pandas,
    "polars lazy": lambda f: pl.from_pandas(f).lazy(),
    "pyarrow": lambda f: pa.Table.from_pandas(f, preserve_index=False),
    "narwhals": lambda f: nw.from_native(pl.from_pandas(f)),
    "nullable": lambda f: f.convert_dtypes(),
    "pyarrow types": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda f: f.astype(object),
    "small integers": cast(age="int8", patient="int16", day="int16"),
    "unsigned": cast(age="uint8", patient="uint32", day="uint64"),
    "floats": cast(age="float64", patient="float64", day="float64"),
    "decimals": change(alt=lambda s: s.map(lambda v: Decimal(str(v)))),
    "outcome of decimals": change(y=lambda s: s.map(lambda v: Decimal(str(v)))),
    "text ids": change(patient=lambda s: s.map("{:04d}".format)),
    "ids with spaces inside": change(patient=lambda s: s.map("ward 3 bed {:02d}".format)),
    "uuid ids": change(patient=lambda s: s.map(lambda i: uuid.UUID(int=i + 1))),
    "large ids": change(patient=lambda s: s + 2**53),
    "negative ids": change(patient=lambda s: s - 100),
    "category ids": change(patient=lambda s: s.map("{:04d}".format).astype("category")),
    "categories": cast(sex="category"),
    "ordered categories": change(sex=lambda s: pd.Categorical(s, ["m", "f"], ordered=True)),
    "string dtype": cast(sex="string"),
    "another index": lambda f: f.set_index(pd.Index(range(500, 500 + len(f)))),
    "a repeated index": lambda f: f.set_index(pd.Index([7] * len(f))),
    "a text index": lambda f: f.set_index(pd.Index([f"r{i}" for i in range(len(f))])),
    "columns in another memory order": lambda f: f[["patient", "day", *FEATURES, "y"]].copy(),
}
# The same outcome, written in another way.
OUTCOMES = {
    "objects": lambda s: s.astype(object),
    "nullable": lambda s: s.astype("Float64"),
    "pyarrow": lambda s: s.astype("double[pyarrow]"),
    "decimals": lambda s: s.map(lambda v: Decimal(str(v))),
    "decimals of pyarrow": lambda s: pd.Series(
        pa.array([Decimal(str(v)) for v in s]), dtype=pd.ArrowDtype(pa.decimal128(6, 1))
    ),
    "polars": lambda s: pl.Series(s.to_numpy()),
    "a list": lambda s: s.tolist(),
    "another index": lambda s: s.set_axis(range(900, 900 + len(s))),
}
# Two classes, each against no and yes as text.
CLASSES = {
    "booleans": lambda s: s > 50,
    "nullable booleans": lambda s: (s > 50).astype("boolean"),
    "objects": lambda s: (s > 50).astype(object),
    "integers": lambda s: (s > 50).astype("Int64"),
    "floats": lambda s: (s > 50).astype(float),
    "words": lambda s: np.where(s > 50, "yes", "no"),
    "categories": lambda s: pd.Categorical(np.where(s > 50, "yes", "no")),
    "categories that nobody has": lambda s: pd.Categorical(
        np.where(s > 50, "yes", "no"), ["maybe", "yes", "no"]
    ),
    "strings": lambda s: pd.Series(np.where(s > 50, "yes", "no"), dtype="string"),
}
# The same tasks under other names.
GROUPS = {
    "unused categories": lambda s: pd.Categorical(s, range(-5, 99)),
    "leading zeros": lambda s: s.map("{:06d}".format),
    "nullable": lambda s: s.astype("Int64"),
    "datetimes": lambda s: START + pd.to_timedelta(s, unit="D"),
    "dates": lambda s: (START + pd.to_timedelta(s, unit="D")).dt.date,
    "halves": lambda s: s + 0.5,
    "a polars series": lambda s: pl.Series(s.to_numpy()),
    "a list": lambda s: s.tolist(),
}
# What an outcome or groups cannot mean: the column that must be named.
ODD_ROWS = {
    "strings of numbers": ("y", lambda s: s.astype(str), "'y'"),
    "decimal commas": ("y", lambda s: s.astype(str).str.replace(".", ","), "'y'"),
    "censored": ("y", lambda s: s.astype(str).where(s.index != 3, "<5"), "'y'"),
    "dates": ("y", dates, "'y'"),
    "one value": ("y", lambda s: 0 * s, "'y'|outcome"),
    "constant in patients": ("y", lambda s: s.groupby(s.index // VISITS).transform("first"), "y"),
    "a gross error": ("y", lambda s: s.where(s.index != 3, 73519.0), "y|outcome"),
    "a missing value": ("y", lambda s: s.where(s.index != 3), "'y'"),
    "an infinite value": ("y", lambda s: s.where(s.index != 3, np.inf), "'y'"),
    "ids of numbers and text": (
        "groups",
        lambda s: s.astype(object).where(s.index != 3, "3"),
        "groups",
    ),
    "missing ids": ("groups", lambda s: s.where(s.index != 3), "groups|task"),
    "tuples": ("groups", lambda s: [(i, i) for i in s], "groups"),
    "ids of rows": ("groups", lambda s: pd.Series(s.index), "task"),
    "one id": ("groups", lambda s: 0 * s, "task|groups"),
    "ids in two spellings": (
        "groups",
        lambda s: s.map("{:02d}".format).where(s.index != 7, "1"),
        r"id\(s\)",
    ),
}
LEGAL = {("constant in patients", "numbers"), ("one id", "effects")}
# The same clock, written in another way.
CLOCKS = {
    "timedeltas": lambda s: pd.to_timedelta(s, unit="D"),
    "text dates": lambda s: dates(s).dt.strftime("%Y-%m-%d"),
    "datetimes": dates,
    "dates": lambda s: dates(s).dt.date,
    "periods": lambda s: dates(s).dt.to_period("D"),
    "zoned": lambda s: dates(s).dt.tz_localize("UTC"),
    "zoned text": lambda s: dates(s).dt.strftime("%Y-%m-%dT00:00:00+00:00"),
    "microseconds": lambda s: dates(s).astype("datetime64[us]"),
    "date objects": lambda s: s.map(
        lambda d: datetime.datetime(2020, 1, 1) + datetime.timedelta(days=int(d))
    ),
}
# What cannot mean what it says: the column that must be named.
TOLD = {
    "infinite feature": (one_cell("age", float("inf")), "age"),
    "infinite lab": (one_cell("alt", float("-inf")), "alt"),
    "a word among numbers": (one_cell("age", "old"), "age"),
    "a limit among numbers": (one_cell("alt", "<5"), "alt"),
    "complex": (change(age=lambda s: s + 0j), "age"),
    "lists": (change(age=lambda s: s.map(lambda v: [v])), "age"),
    "bytes": (change(sex=lambda s: s.map(str.encode)), "sex"),
    "dates as a feature": (change(age=dates), "age"),
    "numbers as text": (change(age=lambda s: s.map("{} y".format)), "age"),
    "a missing id": (one_cell("patient", None), "patient|groups|task id"),
    "a missing time": (one_cell("day", None), "day"),
    "an infinite time": (one_cell("day", float("inf")), "day"),
    "an absurd time": (one_cell("day", 1e300), "day"),
    "words for times": (change(day=lambda s: s.map("day {}".format)), "day"),
    "zones that differ": (
        change(
            day=lambda s: [
                d.tz_localize("UTC" if i % 2 else "Asia/Tokyo") if i != 3 else d
                for i, d in enumerate(dates(s))
            ]
        ),
        "day",
    ),
    "a column twice": (lambda f: pd.concat([f, f[["age"]]], axis=1), "age"),
    "a column less": (lambda f: f.drop(columns="age"), "age"),
    "another name": (lambda f: f.rename(columns={"age": "Age"}), "[Aa]ge"),
}


def features(frame):
    """All but the outcome: `task` and `time` of the estimators name the others."""
    if isinstance(frame, pd.DataFrame):
        return frame.drop(columns="y")
    if isinstance(frame, pa.Table):
        return frame.drop_columns(["y"])
    return frame.drop("y")


def outcome(frame):
    return (frame.collect() if isinstance(frame, pl.LazyFrame) else frame)["y"]


def select(frame):
    """The features of the effect models."""
    names = ["age", "sex"]
    return frame[names] if isinstance(frame, pd.DataFrame) else frame.select(names)


class Models:
    """Models of the plain table, and calls that read another table beside them."""

    def __init__(self, clock=None):
        self.timed = (lambda f: f) if clock is None else change(day=clock)
        self.train, new = self.timed(plain()), self.timed(plain(1))
        first = (plain(1).day < 90).to_numpy()
        self.support = new[first].reset_index(drop=True)
        self.query = new[~first].reset_index(drop=True)
        self.settings = {"max_steps": 1, "random_state": 0, "verbose": False, "schema": SCHEMA}
        self.settings |= {"task": "patient", "time": "day"}
        X, y = features(self.train), self.train.y
        self.regressor = MetaRegressor(MetaSGD(), **self.settings).fit(X, y)
        self.classifier = MetaClassifier(MetaSGD(), **self.settings).fit(X, y > 50)
        self.arm, self.site = np.arange(N * VISITS) % 2, plain().patient % 6
        self.response = self.effects().fit(
            X[["age", "sex"]], y, treatment=self.arm, groups=self.site
        )

    def effects(self):
        return TreatmentResponse(learner="s", random_state=0)

    def table(self, odd):
        table = Table.from_frame(odd(self.train), SCHEMA)
        return np.column_stack([table.y, table.time - table.time.min(), table.X["age"]])

    def check(self, odd):
        findings = check_table(odd(self.train), SCHEMA)
        if findings:
            warnings.warn(repr(findings), DataWarning, stacklevel=1)
        return np.array([len(findings)])

    def fit(self, odd):
        train = odd(self.train)
        model = MetaRegressor(MetaSGD(), **self.settings).fit(features(train), outcome(train))
        return model.predict(features(train))

    def fit_classes(self, odd):
        train = features(odd(self.train))
        model = MetaClassifier(MetaSGD(), **self.settings).fit(train, self.train.y > 50)
        return model.predict_proba(train)

    def predict(self, odd):
        return self.regressor.predict(features(odd(self.query)))

    def adapt(self, odd):
        support, query = odd(self.support), odd(self.query)
        adapted = self.regressor.adapt(features(support), outcome(support))
        return adapted.predict_interval(features(query))

    def adapt_in_frames(self, odd):
        support, query = odd(self.support), odd(self.query)
        adapted = self.regressor.adapt(features(support), outcome(support))
        return adapted.predict_frame(features(query))["mean"].to_numpy()

    def adapt_classes(self, odd):
        support, query = features(odd(self.support)), features(odd(self.query))
        return self.classifier.adapt(support, self.support.y > 50).predict_proba(query)

    def fit_effects(self, odd):
        X = select(odd(self.train))
        fitted = self.effects().fit(X, self.train.y, treatment=self.arm, groups=self.site)
        return np.array([fitted.ate(X)])

    def predict_effects(self, odd):
        return self.response.effect(select(odd(self.query)))


def learn(name, y=None, groups=None):
    """Predictions of a model fitted with the outcome and the groups as arguments."""
    frame = plain()
    X, rows = frame[["age", "alt"]], {"groups": frame.patient if groups is None else groups}
    y = frame.y if y is None else y
    if name == "effects":
        rows["treatment"] = np.arange(N * VISITS) % 2
        return np.array([TreatmentResponse(learner="s", random_state=0).fit(X, y, **rows).ate(X)])
    rows["time"] = frame.day
    settings = {"max_steps": 1, "random_state": 0, "verbose": False, "known": ["alt"]}
    if name == "classes":
        return (
            MetaClassifier(MetaSGD(), **settings).fit(X, y, **rows).predict_proba(X, time=frame.day)
        )
    return MetaRegressor(MetaSGD(), **settings).fit(X, y, **rows).predict(X, time=frame.day)


# The effect models have no schema: text is a category, and their features are selected by name.
WITHOUT_EFFECTS = {"a column less", "numbers as text"}
CALLS = [name for name, call in vars(Models).items() if name[0] != "_" and name != "effects"]
EFFECTS = {"fit_effects", "predict_effects"}


@pytest.fixture(scope="module")
def models():
    return Models()


@pytest.fixture(scope="module")
def expected(models):
    return {name: getattr(models, name)(lambda frame: frame) for name in CALLS}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("odd", SAME)
def test_the_form_of_a_table_does_not_change_a_number(odd, call, models, expected):
    np.testing.assert_allclose(getattr(models, call)(SAME[odd]), expected[call], rtol=1e-5)


@pytest.fixture(scope="module", params=CLOCKS)
def clocked(request):
    return Models(CLOCKS[request.param])


@pytest.mark.parametrize("call", [name for name in CALLS if name not in EFFECTS])
def test_every_kind_of_clock_gives_the_same_numbers(call, clocked, expected):
    np.testing.assert_allclose(
        getattr(clocked, call)(lambda frame: frame), expected[call], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("odd", "call"),
    [
        (odd, call)
        for odd, (_, column) in TOLD.items()
        for call in CALLS
        if call not in EFFECTS or column in FEATURES[:2] and odd not in WITHOUT_EFFECTS
    ],
)
def test_impossible_values_are_reported_with_their_column(odd, call, models, expected):
    make, column = TOLD[odd]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values = getattr(models, call)(make)
            told = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
            assert told or np.array_equal(values, expected[call])
        except EhrmetaError as error:
            told = [str(error)]
    for message in told:
        assert re.search(column, message), message
        assert len(re.findall(r"[.\n] ?[A-Z]", message)) >= 1, f"no remedy: {message}"


LEARNERS = ("numbers", "classes", "effects")


@pytest.fixture(scope="module")
def learned():
    is_high = np.where(plain().y > 50, "yes", "no")
    return {name: learn(name, is_high if name == "classes" else None) for name in LEARNERS}


@pytest.mark.parametrize("name", ["numbers", "effects"])
@pytest.mark.parametrize("odd", OUTCOMES)
def test_the_form_of_an_outcome_does_not_change_a_number(odd, name, learned):
    np.testing.assert_allclose(learn(name, OUTCOMES[odd](plain().y)), learned[name], rtol=1e-5)


@pytest.mark.parametrize("odd", CLASSES)
def test_the_form_of_classes_does_not_change_a_risk(odd, learned):
    np.testing.assert_allclose(
        learn("classes", CLASSES[odd](plain().y)), learned["classes"], rtol=1e-5
    )


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("odd", GROUPS)
def test_the_names_of_tasks_do_not_change_a_number(odd, name, learned):
    y = np.where(plain().y > 50, "yes", "no") if name == "classes" else None
    found = learn(name, y, GROUPS[odd](plain().patient))
    np.testing.assert_allclose(found, learned[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("odd", "name"),
    [
        (o, n)
        for o, (part, *_) in ODD_ROWS.items()
        for n in LEARNERS
        if (part, n) != ("y", "classes") and (o, n) not in LEGAL
    ],
)
def test_impossible_outcomes_and_groups_are_reported(odd, name):
    part, make, column = ODD_ROWS[odd]
    frame = plain()
    rows = {"y": np.where(frame.y > 50, "yes", "no") if name == "classes" else frame.y}
    rows |= {part: make(frame.y if part == "y" else frame.patient)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            learn(name, **rows)
            told = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
        except EhrmetaError as error:
            told = [str(error)]
    assert any(re.search(column, message) for message in told), told or "not a word"
    for message in told:
        assert re.search(r"[.\n] ?[A-Z]", message), f"no remedy: {message}"
