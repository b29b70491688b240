"""Scoring of folders: nothing lost, nothing doubled, one clear error for a part."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import ehrmeta
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.serving import parts, score_folder


@pytest.fixture(scope="module")
def rows(visits: pd.DataFrame) -> pd.DataFrame:
    """Eighty patients, whose last five visits are to be predicted."""
    later = visits.groupby("patient").cumcount() >= 5
    return visits.assign(hdl=visits["hdl"].mask(later))


@pytest.fixture
def source(rows: pd.DataFrame, tmp_path: Path) -> Path:
    """Four parts of twenty patients, each of another kind."""
    folder = tmp_path / "in"
    folder.mkdir()
    first, second, third, fourth = (rows[rows["patient"] // 20 == i] for i in range(4))
    first.to_parquet(folder / "a.parquet", index=False)
    second.to_csv(folder / "b.csv", index=False)
    third.to_csv(folder / "c.tsv.gz", index=False, sep="\t")
    table = pa.Table.from_pandas(fourth, preserve_index=False)
    with pa.ipc.new_file(str(folder / "d.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "_SUCCESS").touch()
    return folder


def predictions(out: Path) -> pd.DataFrame:
    """All files of predictions in one frame."""
    frames = [
        pd.read_parquet(out / "a.parquet"),
        pd.read_csv(out / "b.csv"),
        pd.read_csv(out / "c.tsv.gz", sep="\t"),
        pa.ipc.open_file(out / "d.arrow").read_all().to_pandas(),
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("rows_at_once", [17, 100_000])
def test_the_parts_have_the_numbers_of_the_whole(
    monkeypatch, source, rows, model, model_file, tmp_path, rows_at_once
):
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", rows_at_once)
    lines: list[str] = []
    result = score_folder(model_file, source, tmp_path / "out", progress=lines.append)
    assert result.scored == ["a.parquet", "b.csv", "c.tsv.gz", "d.arrow"]
    assert (result.n_rows, result.n_predictions) == (800, 400)
    assert lines[0].startswith("a.parquet: 200 rows, 100 predictions, ")
    assert lines[0].endswith("(1 of 4)")
    scored = predictions(tmp_path / "out")
    expected = ehrmeta.score_partition(rows, model)
    assert list(scored) == ["patient", "day", "prediction", "lower", "upper"]
    assert scored["patient"].tolist() == expected["task"].tolist()
    np.testing.assert_allclose(scored["prediction"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(scored["upper"], expected["upper"], rtol=1e-5)


def test_only_the_owner_may_read_unless_told(source, model_file, tmp_path):
    score_folder(model_file, source, tmp_path / "out")
    score_folder(model_file, source, tmp_path / "shared", mode=0o640)
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "out").iterdir()}
    assert modes == {"0o600"}
    assert (tmp_path / "shared" / "a.parquet").stat().st_mode & 0o777 == 0o640


def test_a_second_run_scores_what_is_new_only(source, rows, model_file, tmp_path):
    out = tmp_path / "out"
    score_folder(model_file, source, out)
    before = (out / "a.parquet").stat().st_mtime_ns
    (out / "b.csv").unlink()
    os.utime(source / "d.arrow", (time.time() + 60, time.time() + 60))
    result = score_folder(model_file, source, out)
    assert result.skipped == ["a.parquet", "c.tsv.gz"]
    assert result.scored == ["b.csv", "d.arrow"]
    assert (out / "a.parquet").stat().st_mtime_ns == before


def test_a_broken_part_fails_alone(source, rows, model_file, tmp_path):
    broken = rows[rows["patient"] // 20 == 1].copy()
    broken.loc[broken.index[3], "day"] = np.nan
    broken.to_csv(source / "b.csv", index=False)
    (source / "d.arrow").write_bytes(b"ARROW1 and nothing else")
    out = tmp_path / "out"
    result = score_folder(model_file, source, out)
    assert result.scored == ["a.parquet", "c.tsv.gz"]
    assert "column 'day'" in result.failed["b.csv"]
    assert "row 3" in result.failed["b.csv"]
    assert result.failed["d.arrow"].startswith("cannot read it: it is damaged or not a .arrow file")
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == result.scored


def test_rows_of_an_error_are_those_of_the_part(monkeypatch, source, rows, model_file, tmp_path):
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 17)
    broken = rows[rows["patient"] // 20 == 0].reset_index(drop=True)
    broken.loc[150, "day"] = np.nan
    broken.to_parquet(source / "a.parquet", index=False)
    result = score_folder(model_file, source, tmp_path / "out")
    assert "row 150" in result.failed["a.parquet"]


def test_a_patient_in_two_parts_is_refused_by_the_names_of_the_parts(
    source, rows, model_file, tmp_path
):
    again = rows[(rows["patient"] // 20 == 2) | (rows["patient"] == 21)]
    again.to_csv(source / "c.tsv.gz", index=False, sep="\t")
    result = score_folder(model_file, source, tmp_path / "out")
    assert result.scored == ["a.parquet", "d.arrow"]
    expected = "1 tasks of 'b.csv' are also in 'c.tsv.gz'. Write all rows of a task to one part."
    assert result.failed == {"b.csv": expected, "c.tsv.gz": expected}


def test_a_part_need_not_be_sorted(monkeypatch, source, rows, model, model_file, tmp_path):
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 17)
    mixed = rows[rows["patient"] // 20 == 0].sample(frac=1.0, random_state=0)
    mixed.to_parquet(source / "a.parquet", index=False)
    score_folder(model_file, source, tmp_path / "out")
    scored = pd.read_parquet(tmp_path / "out" / "a.parquet")
    expected = ehrmeta.score_partition(mixed, model)
    np.testing.assert_allclose(scored["prediction"], expected["mean"], rtol=1e-6)
    monkeypatch.setattr(parts, "_MOST_UNSORTED", 100)
    result = score_folder(model_file, source, tmp_path / "other")
    assert "200 rows are too many to be read at once. Sort the part" in result.failed["a.parquet"]


def test_a_warning_is_given_once_with_its_part(source, rows, model_file, tmp_path):
    for part, patients in (("a.parquet", 0), ("e.parquet", 1)):
        some = rows[rows["patient"] // 20 == patients].assign(sex="other")
        some.to_parquet(source / part, index=False)
    (source / "b.csv").unlink()
    with pytest.warns(DataWarning) as caught:
        score_folder(model_file, source, tmp_path / "out")
    unknown = [str(one.message) for one in caught if "unknown level" in str(one.message)]
    assert len(unknown) == 1
    assert unknown[0].startswith("a.parquet: ")


def test_a_part_without_rows_gives_a_file_without_rows(source, rows, model_file, tmp_path):
    rows[:0].to_parquet(source / "a.parquet", index=False)
    rows[rows["patient"] // 20 == 1].dropna().to_csv(source / "b.csv", index=False)
    score_folder(model_file, source, tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "a.parquet")) == 0
    empty = pd.read_csv(tmp_path / "out" / "b.csv")
    assert list(empty) == ["patient", "day", "prediction", "lower", "upper"]


def test_a_folder_of_other_predictions_is_refused(source, model, model_file, tmp_path):
    out = tmp_path / "out"
    score_folder(model_file, source, out)
    with pytest.raises(DataError, match="of another model or confidence level"):
        score_folder(model_file, source, out, confidence_level=0.5)
    with pytest.raises(DataError, match="Pass another folder to write to"):
        score_folder(model_file, source, source)
    with pytest.raises(DataError, match="has no file of a table"):
        score_folder(model_file, tmp_path / "out" / "..", tmp_path / "more")
    with pytest.raises(DataError, match="there is no folder"):
        score_folder(model_file, tmp_path / "nowhere", out)


@pytest.mark.slow
def test_two_workers_killed_and_started_again_lose_and_double_nothing(
    rows, model_file, tmp_path, source
):
    for i in range(12):
        some = rows.assign(patient=rows["patient"] + 1000 * (i + 1))
        some.to_parquet(source / f"part-{i:02}.parquet", index=False)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ehrmeta", "score", model_file, source, "--out", out]
    with subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not list(out.glob("part-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    result = score_folder(model_file, source, out, workers=2)
    assert set(finished) <= set(result.skipped)
    assert len(result.skipped) + len(result.scored) == 16
    assert result.failed == {}
    assert all((out / name).stat().st_mtime_ns == at for name, at in finished.items())
    assert {len(pd.read_parquet(path)) for path in out.glob("part-*")} == {400}
    assert not list(out.glob(".*.tmp"))
