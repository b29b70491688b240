import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ehrmeta.data import (
    Table,
    catalog,
    label_within,
    list_datasets,
    load_dataset,
    load_events,
    load_frame,
    read_card,
)
from ehrmeta.errors import DataError, DataWarning

FOLDER = Path(__file__).parents[2] / "datasets"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
PATIENTS_IN_TIME = ["nafld-hdl", "nafld-sbp", "pbcseq"]
LICENCES = {"Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "LGPL-2.0-or-later"}
WITHOUT_UNIT = {"edema", "stage"}
WITHOUT_MEANING = {"acic2016"}  # simulated, over covariates that lost their names
LOOKS_AHEAD = {"case.id", "follow_up", "event", "futime", "status", "vessels_narrowed"}


def parquet(name: str) -> pl.DataFrame:
    return pl.read_parquet(FOLDER / name / "data.parquet")


def implausible(name: str) -> dict[str, int]:
    """Values out of range, by column, as counted in the file."""
    card, frame = read_card(name), parquet(name)
    counts = {}
    for column in columns_of(card):
        if "low" in column:
            values = frame[column["name"]].drop_nulls()
            outside = ((values < column["low"]) | (values > column["high"])).sum()
            counts |= {column["name"]: int(outside)} if outside else {}
    return counts


def load(name: str, **arguments: Any) -> Table:
    """Load a data set; it warns exactly if it holds implausible values."""
    wrong = implausible(name)
    if not wrong:
        return load_dataset(name, **arguments)
    with pytest.warns(DataWarning) as caught:
        table = load_dataset(name, **arguments)
    for column, count in wrong.items():
        assert f"column '{column}': {count:,} " in str(caught[0].message)
    return table


def columns_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [*card["outcome"], *card["feature"]]


def test_every_folder_is_listed_and_complete() -> None:
    assert list(list_datasets()) == NAMES
    for name in NAMES:
        files = {path.name for path in (FOLDER / name).iterdir()}
        assert {"card.toml", "data.parquet", "prepare.py"} <= files


@pytest.mark.parametrize("name", NAMES)
def test_a_card_states_where_the_data_come_from(name: str) -> None:
    card = read_card(name)
    assert card["name"] == name
    assert card["licence"] in LICENCES
    if card["licence"].startswith("CC"):
        assert len(card["changes"]) > 20  # both licences ask for what was changed
        assert card["licence_url"].startswith("https://creativecommons.org/licenses/")
    for key in ("title", "description", "source", "citation"):
        assert len(card[key]) > 20, key
    assert len(card["title"]) < 120
    assert "\n" not in card["title"]
    assert len(card["traps"]) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_a_card_fits_its_file(name: str) -> None:
    card, frame = read_card(name), parquet(name)
    content = (FOLDER / name / "data.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(frame) == card["n_rows"]
    assert frame[card["task"]].n_unique() == card["n_tasks"]
    time = card.get("time", {}).get("name")
    described = {card["task"], time, card.get("treatment")} - {None}
    described |= {column["name"] for column in columns_of(card) + card.get("withheld", [])}
    repeated = card.get("instances", {"n": 0, "columns": []})
    for column in repeated["columns"]:
        described |= {f"{column}_{i + 1}" for i in range(repeated["n"])}
    assert described - set(repeated["columns"]) == set(frame.columns)
    key = [card["task"]] if time is None else [card["task"], time]
    assert frame.select(key).equals(frame.select(key).sort(key))
    assert time is None or not frame.select(key).is_duplicated().any()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_have_units_and_ranges(name: str) -> None:
    card, frame = read_card(name), load_frame(name)
    for column in columns_of(card):
        kind = column.get("kind", "numeric")
        values = frame[column["name"]].dropna()
        if kind == "categorical":
            assert values.dtype == "str"
        elif kind == "binary" or ("low" not in column and name not in WITHOUT_MEANING):
            assert set(values.unique()) == {0, 1}
        elif name in WITHOUT_MEANING:
            assert not {"unit", "low"} & set(column)
        else:
            assert column.get("unit") or column["name"] in WITHOUT_UNIT
            assert implausible(name).get(column["name"], 0) <= 0.001 * len(frame)


@pytest.mark.parametrize("name", NAMES)
def test_loading_gives_the_counts_of_the_card(name: str) -> None:
    card, table = read_card(name), load(name)
    assert (len(table), table.n_tasks) == (card["loaded"]["n_rows"], card["loaded"]["n_tasks"])
    assert table.tasks.sizes.min() >= card["min_rows"]
    assert table.schema.task_kind == card["task_kind"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_withheld_becomes_a_feature(name: str) -> None:
    card, table = read_card(name), load(name)
    withheld = {column["name"] for column in card.get("withheld", [])}
    assert not set(table.schema.columns) & (withheld | LOOKS_AHEAD)
    assert set(table.X) == set(table.schema.names)
    assert not {table.schema.task, table.schema.treatment} & set(table.X)


@pytest.mark.parametrize("name", NAMES)
def test_splits_keep_tasks_together(name: str) -> None:
    table = load(name)
    if table.n_tasks == 1:
        return
    train, test = table.split(0.25, random_state=0)
    assert not set(train.groups) & set(test.groups)
    assert len(train) + len(test) == len(table)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_holds_every_column_and_matches_the_table_by_index(name: str) -> None:
    table, frame = load(name), load_frame(name)
    assert "instances" in read_card(name) or list(frame) == parquet(name).columns
    outcome = table.schema.outcome
    assert outcome is not None
    np.testing.assert_array_equal(frame.loc[table.X.index, outcome.name], table.y)


@pytest.mark.parametrize("name", PATIENTS_IN_TIME)
def test_patients_in_time_keep_their_static_features(name: str) -> None:
    table = load(name)
    assert table.schema.time is not None
    assert table.schema.time.name not in table.X
    assert all(f.role == "static" for f in table.schema.features if f.name in ("male", "sex"))
    assert not set(table.schema.names) & {"bmi", "weight", "height"}  # of the index date


def test_all_people_are_there_for_who_wants_them() -> None:
    assert load("nafld-hdl", min_rows=1).n_tasks == 15_205
    few = load("nafld-hdl", min_rows=60)
    assert few.tasks.sizes.min() >= 60
    assert few.findings[-1].count == 15_205 - few.n_tasks


@pytest.mark.parametrize("name", ["nafld-hdl", "nafld-sbp"])
def test_the_index_date_is_no_feature_and_age_is_that_of_the_visit(name: str) -> None:
    table = load(name)
    assert table.schema.time is not None
    assert table.schema.time.is_feature is False
    assert "index date" in str(table.schema.time.origin)
    assert table.time is not None
    birth = table.X["age"].to_numpy() - table.time / 365.25
    first, last = table.tasks.starts[:-1], table.tasks.starts[1:] - 1
    order = table.tasks.order
    np.testing.assert_allclose(birth[order[first]], birth[order[last]], atol=0.02)


def test_typing_errors_stay_in_the_file_and_out_of_the_table() -> None:
    assert parquet("nafld-sbp")["sbp"].max() == 13_682
    table = load("nafld-sbp")
    assert 40 <= table.y.min() <= table.y.max() <= 300
    assert table.findings[0].count == 7


def test_the_trial_has_a_separate_treatment_column() -> None:
    table = load("pbcseq")
    assert table.treatment is not None
    assert "treatment" not in table.X
    arms = table.treatment[table.tasks.order[table.tasks.starts[:-1]]]
    assert np.bincount(arms).tolist() == [154, 158]
    assert table.schema.outcome is not None
    assert table.schema.outcome.transform == "log"
    assert set(table.schema.measured) >= {"albumin", "ascites", "stage", "platelet"}
    ends = parquet("pbcseq").group_by("patient_id").agg(pl.col("event").max())
    assert ends["event"].value_counts().sort("event")["count"].to_list() == [143, 29, 140]


def test_cholesterol_of_zero_is_missing() -> None:
    hearts = load("heart-4-hospitals")
    assert hearts.X.loc[hearts.groups == "Switzerland", "cholesterol"].isna().all()
    assert hearts.X["cholesterol"].min() > 50
    assert np.sum(1 - hearts.y[hearts.groups == "Switzerland"]) == 8


def test_warfarin_is_a_stable_dose_in_mg_a_week() -> None:
    table = load("warfarin-iwpc")
    outcome = table.schema.outcome
    assert outcome is not None
    assert (outcome.unit, outcome.transform) == ("mg/wk", "sqrt")
    assert 25 <= np.median(table.y) <= 30
    features = " ".join(table.schema.names)
    assert not any(word in features for word in ("inr_on", "stable", "comment", "subject", "id_"))
    assert table.tasks.sizes.min() == 63


def test_every_person_has_a_follow_up_and_some_die() -> None:
    people, events = load_frame("nafld"), load_events("nafld")
    assert len(people) == people["patient_id"].nunique() == 17_549
    assert list(events) == ["subject_id", "time", "code"]
    assert events[["subject_id", "time"]].equals(
        events[["subject_id", "time"]].sort_values(["subject_id", "time"])
    )
    ends = events[events["code"] == "end of follow-up"].set_index("subject_id")["time"]
    assert ends.index.is_unique
    people = people.set_index("patient_id")
    assert ends.sort_index().equals(people["follow_up"].sort_index().rename("time"))
    deaths = events[events["code"] == "death"].set_index("subject_id")["time"]
    assert set(deaths.index) == set(people.index[people["died"] == 1])
    assert (deaths == ends[deaths.index]).all()
    assert set(events["subject_id"]) == set(people.index)
    assert set(load_frame("nafld-hdl")["patient_id"]) <= set(people.index)


def test_matched_sets_are_the_tasks_and_stay_in_one_fold() -> None:
    table, people = load("nafld"), load_frame("nafld")
    assert table.schema.task == "matched_set"
    sets = people.groupby("matched_set")
    assert sets.size().max() == 5
    cases = people["patient_id"] == people["matched_set"]
    assert sets["case"].sum().max() <= 2
    assert people.loc[cases, "case"].mean() > 0.99
    train, test = table.split(0.2, random_state=0)
    one, other = (set(people.loc[part.X.index, "matched_set"]) for part in (train, test))
    assert not one & other


def test_the_events_make_labels() -> None:
    events = load_events("nafld")
    ends = events[events["code"] == "end of follow-up"]
    labels = label_within(
        events,
        365.25,
        prediction_times=ends[["subject_id"]].assign(prediction_time=0.0),
        follow_up=ends[["subject_id", "time"]],
        event="diabetes",
        competing="death",
    )
    known = labels["subject_id"].isin(
        events.loc[(events["code"] == "diabetes") & (events["time"] <= 0), "subject_id"]
    )
    assert not known.any()
    assert 0.001 < (labels["event"] == 1).mean() < 0.05


def test_instances_share_the_features_and_have_their_own_truth() -> None:
    one, two = (load_dataset("acic2016", instance=i) for i in (1, 2))
    assert one.X.equals(two.X)
    assert not np.array_equal(one.y, two.y)
    assert one.treatment is not None
    for instance in range(1, 11):
        table = load_dataset("acic2016", instance=instance)
        truth = load_frame("acic2016", instance=instance)
        observed = np.where(table.treatment == 1, truth["mu1"], truth["mu0"])
        assert abs(np.std(table.y - observed) - 1) < 0.05
        effect = truth["mu1"] - truth["mu0"]
        assert (np.std(effect) < 1e-3) == (instance in (2, 3))
    with pytest.raises(DataError, match="no instance 11. Pass one of 1 to 10"):
        load_dataset("acic2016", instance=11)
    with pytest.raises(DataError, match="'pbcseq' has no instance 2. Pass one of 1 to 1"):
        load_frame("pbcseq", instance=2)


def test_randomised_arms_have_the_shares_of_the_card() -> None:
    for name in NAMES:
        card = read_card(name)
        if "propensity" in card:
            treated = load_frame(name)[card["treatment"]]
            error = np.sqrt(card["propensity"] * (1 - card["propensity"]) / len(treated))
            assert abs(np.mean(treated) - card["propensity"]) < 3 * error


def test_another_outcome_makes_the_usual_one_a_measured_feature() -> None:
    table = load("pbcseq", outcome="albumin")
    assert table.schema.outcome is not None
    assert (table.schema.outcome.name, table.schema.outcome.unit) == ("albumin", "g/dL")
    assert "bili" in table.schema.measured
    assert "albumin" not in table.X
    cholesterol = load("pbcseq", outcome="chol")
    assert cholesterol.findings[0].count == 821
    with pytest.raises(DataError, match="no outcome 'albumn'. Did you mean 'albumin'"):
        load("pbcseq", outcome="albumn")


def test_an_unknown_name_and_an_impossible_filter_say_what_to_do() -> None:
    with pytest.raises(DataError, match="no data set 'nafldhdl'. Did you mean 'nafld-hdl'"):
        load_dataset("nafldhdl")
    with pytest.raises(DataError, match="no data set '../datasets/pbcseq'"):
        load_dataset("../datasets/pbcseq")
    with pytest.raises(DataError, match="no data set 'pbc'.*pbcseq"):
        load_frame("pbc")
    with pytest.raises(DataError, match="data set 'pbcseq' has no events. Known: 'nafld'"):
        load_events("pbcseq")
    with pytest.raises(DataError, match=r"no task has 99 rows \(the largest has 16\)"):
        load_dataset("pbcseq", min_rows=99)
    with pytest.raises(DataError, match="min_rows must be at least 1"):
        load_dataset("pbcseq", min_rows=0)


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER / "pbcseq", tmp_path / "pbcseq")
    path = tmp_path / "pbcseq" / "data.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(catalog, "_folder", lambda: tmp_path)
    with pytest.raises(DataError, match="'pbcseq': data.parquet is damaged .*SHA-256"):
        load_dataset("pbcseq")
