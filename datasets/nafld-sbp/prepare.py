"""Rebuild data.parquet as nafld-hdl's is, from the same source."""

import runpy
from pathlib import Path

FOLDER = Path(__file__).parent

if __name__ == "__main__":
    steps = runpy.run_path(str(FOLDER.parent / "nafld-hdl" / "prepare.py"))
    steps["prepare"]("sbp", FOLDER)
