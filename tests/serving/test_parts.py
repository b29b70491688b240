"""Pieces of parts: whole tasks, every row once."""

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from ehrmeta.serving import parts


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), at_once=st.integers(1, 7))
def test_pieces_hold_whole_tasks_and_every_row_once(tmp_path_factory, sizes, at_once):
    ids = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    frame = pd.DataFrame({"id": ids, "row": range(len(ids))})
    path = tmp_path_factory.mktemp("parts") / "part.parquet"
    frame.to_parquet(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "ROWS_AT_ONCE", at_once)
        scan = parts.scan_tasks(path, "id", ("id",))
        pieces = list(parts.read_pieces(path, ("id", "row"), "id", ("id",), scan))
    assert scan.together
    assert (len(scan.hashes), scan.n_rows) == (len(sizes), len(ids))
    assert [row for piece in pieces for row in piece["row"]] == list(range(len(ids)))
    assert [row for piece in pieces for row in piece.index] == list(range(len(ids)))
    tasks = [set(piece["id"]) for piece in pieces]
    assert len(set.union(*tasks)) == sum(map(len, tasks))


def test_an_id_has_one_hash_as_text_and_as_number(tmp_path):
    numbers, texts = tmp_path / "a.parquet", tmp_path / "b.csv"
    pd.DataFrame({"id": [7, 8, 7]}).to_parquet(numbers)
    pd.DataFrame({"id": ["8", "7"]}).to_csv(texts, index=False)
    scans = [parts.scan_tasks(path, "id", ("id",)) for path in (numbers, texts)]
    assert scans[0].hashes.tolist() == scans[1].hashes.tolist()
    assert [scan.together for scan in scans] == [False, True]


def test_hidden_files_are_no_parts(tmp_path):
    for name in ("b.csv", "a.PARQUET", ".a.csv", "_metadata.parquet", "readme.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in parts.parts_of(tmp_path)] == ["a.PARQUET", "b.csv"]
