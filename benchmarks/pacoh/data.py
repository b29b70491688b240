"""ICU stays of the PhysioNet / CinC 2012 challenge, from the official text files or parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.suite.arrays import Mask
from ehrmeta.data import Clock, Feature, Outcome, Schema, Table
from ehrmeta.errors import DataError

#: variable: unit and resolution
OUTCOMES = {"GCS": ("{score}", 1.0), "HCT": ("%", 0.1)}

CONTEXT_HOURS = 24.0
MIN_POINTS = 4
N_TRAIN, N_TEST = 100, 500

_WHERE = (
    "Download set-a.tar.gz from https://physionet.org/content/challenge-2012/1.0.0/ (open, ODC-By) "
    "and unpack it there."
)


def read_stays(folder: Path, variable: str, which: str = "a") -> Table:
    """Values of one variable in the eligible stays, in file order.

    A stay is eligible with 4 values in the first 24 hours and one later. Tasks are numbered in file
    order; time and the only feature are the hour.

    Parameters
    ----------
    folder : Path
        With ``set_a.parquet`` (RecordID, hour, Parameter, Value), or the folder ``set-a`` of the
        official ``<RecordID>.txt`` files.
    variable : str
        One of `OUTCOMES`.
    which : {"a", "b"}
        Set of the challenge.

    Raises
    ------
    DataError
        The files are missing or damaged.
    """
    rows = _from_parquet(folder, variable, which)
    frame = rows.sort(["RecordID", "hour"], maintain_order=True).to_pandas()
    frame = frame.drop_duplicates(["RecordID", "hour"], keep="last")
    frame = frame[frame["Value"] >= 0]  # -1 marks a missing value
    hours, stays = frame["hour"].to_numpy(), frame["RecordID"]
    early = pd.Series(hours <= CONTEXT_HOURS).groupby(stays.to_numpy()).sum()
    late = pd.Series(hours > CONTEXT_HOURS).groupby(stays.to_numpy()).sum()
    eligible = early.index[(early >= MIN_POINTS) & (late >= 1)]
    frame = frame[stays.isin(eligible)]
    unit, resolution = OUTCOMES[variable]
    schema = Schema(
        (Feature("hour_in_unit", unit="h"),),
        Outcome(variable, unit, resolution=resolution),
        task="stay",
        time=Clock("hour", "h", "admission", is_feature=False),
    )
    return Table.from_frame(
        pd.DataFrame(
            {
                "stay": np.searchsorted(eligible, frame["RecordID"]),
                "hour": frame["hour"].astype(float),
                "hour_in_unit": frame["hour"].astype(float),
                variable: frame["Value"].astype(float),
            }
        ),
        schema,
    )


def split_stays(table: Table, seed: int | None) -> tuple[Table, Table]:
    """100 stays for training and 500 for testing, at random or the published split (None)."""
    if table.n_tasks < N_TRAIN + N_TEST:
        raise DataError(
            f"{table.n_tasks} stays have enough values; the protocol needs {N_TRAIN + N_TEST}. "
            "Check that the download is complete."
        )
    order = np.arange(table.n_tasks)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    train, test = (np.isin(table.tasks.codes, part) for part in (order[:N_TRAIN], order[-N_TEST:]))
    return table.take(train), table.take(test)


def support_and_query(table: Table) -> tuple[Mask, Mask]:
    """Masks of the rows of the first 24 hours, and of those after, each (row,)."""
    early = np.asarray(table.time) <= CONTEXT_HOURS
    return early, ~early


def _from_parquet(folder: Path, variable: str, which: str) -> pl.DataFrame:
    """Columns RecordID, hour and Value of one variable."""
    path = folder / f"set_{which}.parquet"
    if not path.exists():
        return _from_text(folder, variable, which)
    try:
        frame = pl.read_parquet(path, columns=["RecordID", "hour", "Parameter", "Value"])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"'{path}' is no parquet file with RecordID, hour, Parameter and Value "
            f"({type(error).__name__}). Write it again."
        ) from error
    of_variable = frame.filter(pl.col("Parameter").cast(pl.String) == variable)
    return of_variable.select("RecordID", "hour", "Value")


def _from_text(folder: Path, variable: str, which: str) -> pl.DataFrame:
    files = sorted((folder / f"set-{which}").glob("*.txt"))
    if not files:
        raise DataError(
            f"'{folder}' has neither set_{which}.parquet nor set-{which}/*.txt. {_WHERE}"
        )
    parts = []
    for number, path in enumerate(files):
        try:
            rows = pl.read_csv(
                path, schema={"Time": pl.String, "Parameter": pl.String, "Value": pl.Float64}
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"file {number + 1} of {len(files)} in '{path.parent}' is not "
                f"'Time,Parameter,Value' text ({type(error).__name__}). Unpack it again."
            ) from error
        clock = pl.col("Time").str.split(":").list
        hour = clock.get(0).cast(pl.Float64) + clock.get(1).cast(pl.Float64) / 60.0
        parts.append(
            rows.filter(pl.col("Parameter") == variable).select(
                pl.lit(int(path.stem)).alias("RecordID"), hour.alias("hour"), "Value"
            )
        )
    return pl.concat(parts)
