import csv
import stat

import pandas as pd
import pytest

from ehrmeta.data.table_file import read_frame, write_frame
from ehrmeta.errors import DataError, DataWarning


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "TABLE.CSV"])
def test_what_is_written_is_read(name, tmp_path):
    frame = pd.DataFrame({"id": ["007", "A1"], "day": [0, 3], "hdl": [48.5, None]})
    write_frame(frame, tmp_path / name)
    pd.testing.assert_frame_equal(read_frame(tmp_path / name, text=("id",)), frame)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_ids_named_as_text_keep_their_zeros(tmp_path):
    (tmp_path / "t.csv").write_text("id,day\n007,1\n010,2\n")
    assert read_frame(tmp_path / "t.csv", text=("id", "absent")).id.tolist() == ["007", "010"]
    assert read_frame(tmp_path / "t.csv").id.tolist() == [7, 10]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "No columns to parse"),
        (b"a,b\n1,2,3\n4,5,6\n", "as csv: Length of header"),
        (b"a,b\n1,2\n4,5,6\n", "Expected 2 fields in line 3"),
    ],
    ids=["empty", "long rows", "one long row"],
)
def test_a_malformed_csv_is_refused(content, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_frame(path)
    assert "t.csv" in str(caught.value)


def test_a_byte_order_mark_and_trailing_commas_do_no_harm(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2,\n")
    assert read_frame(path).to_dict("list") == {"a": [1], "b": [2]}


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_frame(pd.DataFrame({"a": range(1000)}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot read .*t.parquet"):
        read_frame(path)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.gz"])
def test_other_suffixes_are_refused_in_both_directions(name, tmp_path):
    with pytest.raises(DataError, match=r"must be \.csv, \.tsv, \.csv\.gz, \.tsv\.gz or \.parq"):
        read_frame(tmp_path / name)
    with pytest.raises(DataError, match=r"must be \.csv or \.parquet"):
        write_frame(pd.DataFrame({"a": [1]}), tmp_path / name)


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="No such file or directory"):
        read_frame(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="cannot write"):
        write_frame(pd.DataFrame({"a": [1]}), tmp_path / "absent" / "t.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", no_space)
    with pytest.raises(DataError, match="No space left on device"):
        write_frame(pd.DataFrame({"a": [2]}), path)
    assert path.read_text() == "a\n1\n"


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1-1", "@SUM(1)", "\tx", "\rx", "'=1", "''=1", "=1"]
HARMLESS = ["-5", "+5.5", "p1", "'quoted'", "a=b", "", "é"]


def test_formulas_are_escaped_with_a_warning_and_read_back(tmp_path):
    path = tmp_path / "predictions.csv"
    frame = pd.DataFrame({"=id": FORMULAS + HARMLESS, "prediction": -1.5})
    with pytest.warns(DataWarning, match=r"apostrophe before them \('=id': 9\)"):
        write_frame(frame, path)
    with path.open(newline="") as file:
        cells = [row[0] for row in csv.reader(file)]
    assert cells == ["'=id", *("'" + cell for cell in FORMULAS), *HARMLESS]
    back = read_frame(path, text=("'=id",))
    assert back["=id"].fillna("").tolist() == FORMULAS + HARMLESS
    write_frame(frame, path.with_suffix(".parquet"))
    pd.testing.assert_frame_equal(read_frame(path.with_suffix(".parquet")), frame)


def test_only_the_owner_reads_predictions_unless_told(tmp_path):
    frame, path = pd.DataFrame({"a": [1]}), tmp_path / "t.csv"
    path.touch(0o644)
    write_frame(frame, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_frame(frame, path, mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
