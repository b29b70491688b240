"""A CSV file is read alike however a spreadsheet wrote it, and what is unusual is told."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from ehrmeta.data import read_frame
from ehrmeta.data.csv_file import CsvForm
from ehrmeta.errors import DataError, DataWarning, SchemaError

VISITS = pd.DataFrame(
    {
        "patient": ["0007", "0007", "0012"],
        "größe": [1.5, 183.25, None],
        "ward": ["Süd; 2", "Nord, 1", None],
        "day": [0, 30, 4],
    }
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_any_form_is_read_like_the_plain_one(encoding, sep, decimal, tmp_path):
    path = tmp_path / "visits.csv"
    VISITS.to_csv(path, index=False, sep=sep, encoding=encoding, decimal=decimal)
    unusual = [
        *([f"encoding {encoding}"] if not encoding.startswith("utf-8") else []),
        *(["separated by"] if sep != "," else []),
        *(["decimal commas"] if decimal == "," else []),
    ]
    if unusual:
        with pytest.warns(DataWarning) as caught:
            frame = read_frame(path, text=("patient",))
        assert all(part in str(caught[0].message) for part in unusual)
    else:
        frame = read_frame(path, text=("patient",))
    pd.testing.assert_frame_equal(frame, VISITS)
    told = read_frame(path, text=("patient",), sep=sep, decimal=decimal, encoding=encoding)
    pd.testing.assert_frame_equal(told, VISITS)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1250", "Płeć,mężczyzna"),
        ("cp1251", "Пациент,мужской"),
        ("cp1253", "Φύλο,ασθενής"),
        ("cp1252", "Größe,élève"),
        ("cp1252", "zellen [10³/µl],fläche [m²]"),
    ],
)
def test_the_encoding_is_that_of_the_likely_language(encoding, words, tmp_path):
    (tmp_path / "visits.csv").write_bytes(f"{words}\n1,2\n".encode(encoding))
    with pytest.warns(DataWarning, match=f"encoding {encoding}"):
        assert list(read_frame(tmp_path / "visits.csv")) == words.split(",")


@pytest.mark.parametrize(("name", "sep"), [("v.tsv", "\t"), ("v.csv.gz", ","), ("V.TSV.GZ", "\t")])
def test_tabs_and_packed_files_are_usual(name, sep, tmp_path):
    content = VISITS.to_csv(index=False, sep=sep).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower()[-1] == "z" else content)
    pd.testing.assert_frame_equal(read_frame(tmp_path / name, text=("patient",)), VISITS)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.filterwarnings("ignore:.*is read as:ehrmeta.errors.DataWarning")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;\nid;hdl\n1;48,5\n", [48.5]),
        ("id;hdl\r\n1;48,5\r\n2;<3,5\r\n3;7\r\n", ["48.5", "<3.5", "7"]),
        ("id;hdl;day\n1;1,234;0\n2;0,5;1\n", [1.234, 0.5]),
        ("id;hdl;born\n1;48,5;01.02.1960\n", [48.5]),
        ("id;hdl;code\n1;48,5;A,1\n", [48.5]),
        ("id,hdl\n1,48.5\n2,<3.5\n", ["48.5", "<3.5"]),
    ],
)
def test_numbers_are_read_with_their_decimals(text, expected, tmp_path):
    assert read_frame(written(tmp_path / "t.csv", text)).hdl.tolist() == expected


def test_possible_thousands_are_refused_without_a_decimal(tmp_path):
    path = written(tmp_path / "t.csv", "id;hdl\n1;1,234\n2;950\n")
    with pytest.raises(DataError, match="a decimal or thousands"):
        read_frame(path, sep=";")
    assert read_frame(path, sep=";", decimal=",").hdl.tolist() == [1.234, 950]


def test_points_among_decimal_commas_are_reported(tmp_path):
    path = written(tmp_path / "t.csv", "id;hdl;cells\n1;48,5;1.234\n2;50;2.500\n")
    with pytest.warns(
        DataWarning, match=r"column\(s\) \['cells'\] hold numbers with decimal points"
    ):
        frame = read_frame(path, sep=";", decimal=",")
    assert frame.cells.tolist() == ["1.234", "2.500"]


def test_a_row_knows_its_line(tmp_path):
    path = written(tmp_path / "t.csv", 'sep=;\nid;note\n1;"two\nlines"\n\n2;x\n3;y\n')
    _, *lines = (line for line, _ in CsvForm.detect(path).rows(path))
    assert lines == [3, 6, 7]


@pytest.mark.parametrize(
    ("content", "keywords", "message"),
    [
        (b"a,b\n1,2\n", {"encoding": "utf-99"}, "unknown encoding"),
        (b"a,b\n\xff,2\n", {"encoding": "utf-8"}, "its bytes are not utf-8"),
    ],
)
def test_a_wrong_encoding_is_named(content, keywords, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_frame(tmp_path / "t.csv", **keywords)


def test_a_damaged_packed_file_is_refused(tmp_path):
    packed = gzip.compress(VISITS.to_csv(index=False).encode())
    for content in (packed[:-12], b"no gzip"):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            read_frame(tmp_path / "t.csv.gz")


def test_a_column_named_twice_is_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"more than one column \['hdl'\]"):
        read_frame(written(tmp_path / "t.csv", "id,hdl,hdl\n1,2,3\n"))
