"""Rebuild data.parquet: pip install --no-deps causallib==0.10.0, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import polars as pl

N_INSTANCES = 10


def source() -> Path:
    spec = importlib.util.find_spec("causallib")
    if spec is None or spec.origin is None:
        raise SystemExit("causallib is missing: pip install --no-deps causallib==0.10.0")
    return Path(spec.origin).parent / "datasets" / "data" / "acic_challenge_2016"


def instance(number: int) -> pl.DataFrame:
    """Treatment, observed outcome and the two expected ones, float32: exact to 1e-6."""
    rows = pl.read_csv(source() / f"zymu_{number}.csv")
    treated = rows["z"] == 1
    return pl.DataFrame(
        {
            f"treatment_{number}": rows["z"].cast(pl.Int8),
            f"y_{number}": rows["y1"].zip_with(treated, rows["y0"]).cast(pl.Float32),
            f"mu0_{number}": rows["mu0"].cast(pl.Float32),
            f"mu1_{number}": rows["mu1"].cast(pl.Float32),
        }
    )


def prepare(folder: Path) -> None:
    features = pl.read_csv(source() / "x.csv", infer_schema_length=None)
    features = features.with_columns(
        pl.selectors.integer().cast(pl.Int16), pl.selectors.float().cast(pl.Float32)
    )
    study = pl.DataFrame({"study": pl.zeros(len(features), pl.Int8, eager=True)})
    parts = [study, features, *(instance(number) for number in range(1, N_INSTANCES + 1))]
    frame = pl.concat(parts, how="horizontal")
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['study'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
