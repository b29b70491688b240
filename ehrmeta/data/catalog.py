"""Bundled data sets of real patients, each with a card that states its source."""

import hashlib
import io
import tomllib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ehrmeta.data.findings import Finding
from ehrmeta.data.schema import Schema
from ehrmeta.data.table import Table
from ehrmeta.errors import DataError, Remedy, did_you_mean

_SCHEMA_KEYS = ("task", "task_kind", "time", "treatment", "outcome_time", "on_duplicate")


def list_datasets() -> dict[str, str]:
    """Names and titles of the bundled data sets.

    Examples
    --------
    >>> list_datasets()["rhdnase"]
    'Cystic fibrosis: 647 patients of 51 institutions, inhaled rhDNase against placebo'
    """
    names = sorted(path.parent.name for path in _folder().glob("*/card.toml"))
    return {name: str(read_card(name)["title"]) for name in names}


def load_dataset(
    name: str, *, min_rows: int | None = None, outcome: str | None = None, instance: int = 1
) -> Table:
    """Load a bundled data set as a checked table.

    Parameters
    ----------
    name : str
        One of `list_datasets`.
    min_rows : int, optional
        Keep tasks with at least this many rows; by default that of the card, 1 for all. Use all
        tasks to study risk: selecting patients with many visits would select survivors.
    outcome : str, optional
        Another outcome of the card; the default outcome is then a measured feature.
    instance : int
        Number of the instance, for data simulated repeatedly over the same features.

    Returns
    -------
    Table
        Its findings list dropped values and rows; a `DataWarning` reports implausible values.

    Raises
    ------
    DataError
        An unknown name, outcome or instance, a damaged file, or no task with enough rows.

    Examples
    --------
    >>> load_dataset("pbcseq")
    Table: 1,945 rows, 312 tasks (1 to 16 rows each, median 5)
    task       patient_id (patient)
    outcome    bili [mg/dL] 0.05 to 60  (serum bilirubin), log scale
    time       day [d] since randomisation
    treatment  treatment
    ...
    """
    card = read_card(name)
    frame, schema = _instance(card, instance), _schema(card, outcome)
    short = frame.select_dtypes("float32")
    frame = frame.astype(dict.fromkeys(short.columns[short.isna().any()], np.float64))
    table = Table.from_frame(frame, schema, on_missing_outcome="drop")
    min_rows = card.get("min_rows", 1) if min_rows is None else min_rows
    if min_rows < 1:
        raise DataError(f"min_rows must be at least 1, got {min_rows}.")
    enough = table.tasks.sizes >= min_rows
    if not enough.any():
        what = f"no task has {min_rows} rows (the largest has {table.tasks.sizes.max()})."
        raise DataError(f"{what} Pass a smaller min_rows.")
    if enough.all():
        return table
    too_small = Finding(
        f"of {table.n_tasks:,} tasks dropped: fewer than {min_rows} rows",
        str(table.schema.task),
        int(np.sum(~enough)),
        Remedy("keep-small-tasks", "Pass min_rows=1 to keep them."),
    )
    return table.take(enough[table.tasks.codes]).with_findings(too_small)


def load_frame(name: str, *, instance: int = 1) -> pd.DataFrame:
    """Load all columns of a bundled data set as stored, also those that `load_dataset` withholds.

    Withheld columns cannot be features: they look ahead, encode the outcome or identify patients.
    Some have other uses: follow-up for survival, matched sets for folds, true effects for scores.
    Rows match those of a table by the index of its X. Parameters are those of `load_dataset`.

    Examples
    --------
    >>> table = load_dataset("pbcseq")
    >>> load_frame("pbcseq").loc[table.X.index, ["follow_up", "event"]].shape
    (1945, 2)
    """
    return _instance(read_card(name), instance)


def load_events(name: str) -> pd.DataFrame:
    """Load the events of a bundled data set, in the columns of MEDS.

    Every patient has an event "end of follow-up", and those who died have "death" on the same day.

    Returns
    -------
    DataFrame
        ``subject_id``, ``time`` in the unit and from the origin that the data set's ``card.toml``
        gives, and ``code``, sorted by subject and time. Codes may repeat.

    Examples
    --------
    >>> events = load_events("nafld")
    >>> int((events["code"] == "myocardial infarction").sum())
    1199
    """
    card = read_card(name)
    if "events" not in card:
        others = [other for other in list_datasets() if "events" in read_card(other)]
        raise DataError(f"data set '{name}' has no events. {did_you_mean(name, others)}")
    return _read(card, card["events"]["file"], card["events"]["sha256"])


def read_card(name: str) -> dict[str, Any]:
    """Read the card of a data set: title, source, licence, citation, columns and known traps.

    Examples
    --------
    >>> read_card("pbcseq")["licence"]
    'LGPL-2.0-or-later'
    """
    path = _folder() / name / "card.toml"
    known = sorted(card.parent.name for card in _folder().glob("*/card.toml"))
    if name not in known:
        raise DataError(f"no data set '{name}'. {did_you_mean(name, known)}")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _read(card: dict[str, Any], file: str, sha256: str | None = None) -> pd.DataFrame:
    """Read a file of a data set and check it against the digest of the card.

    It is read in one thread, because a forked process would wait forever for its parent's threads.
    """
    content = (_folder() / card["name"] / file).read_bytes()
    if hashlib.sha256(content).hexdigest() != (sha256 or card["sha256"]):
        raise DataError(
            f"data set '{card['name']}': {file} is damaged (its SHA-256 is not that of the card). "
            "Install the package again."
        )
    table = pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)
    return cast(pd.DataFrame, table.to_pandas(use_threads=False))


def _instance(card: dict[str, Any], instance: int) -> pd.DataFrame:
    """Rows of a data set with the columns of one instance."""
    repeated = card.get("instances", {"n": 1, "columns": []})
    numbers = range(1, repeated["n"] + 1)
    if instance not in numbers:
        raise DataError(
            f"data set '{card['name']}' has no instance {instance}. Pass one of 1 to {numbers[-1]}."
        )
    frame = _read(card, "data.parquet")
    names = repeated["columns"]
    others = [f"{name}_{i}" for name in names for i in numbers if i != instance]
    return frame.drop(columns=others).rename(columns={f"{name}_{instance}": name for name in names})


def _folder() -> Path:
    """Folder of the data sets: in the installed package, or next to it in a checkout."""
    packaged = Path(__file__).parents[1] / "_datasets"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "datasets"


def _schema(card: dict[str, Any], outcome: str | None) -> Schema:
    """Schema of a card; outcomes other than the chosen or first one are measured features."""
    outcomes = {entry["name"]: entry for entry in card["outcome"]}
    chosen = next(iter(outcomes)) if outcome is None else outcome
    if chosen not in outcomes:
        raise DataError(
            f"data set '{card['name']}' has no outcome '{chosen}'. {did_you_mean(chosen, outcomes)}"
        )
    others = [
        {key: entry[key] for key in ("name", "unit", "low", "high", "label") if key in entry}
        | {"role": "measured"}
        for entry_name, entry in outcomes.items()
        if entry_name != chosen
    ]
    values = {key: card[key] for key in _SCHEMA_KEYS if key in card}
    features = [*card["feature"], *others]
    return Schema.from_dict(values | {"features": features, "outcome": outcomes[chosen]})
