"""Stays are read and split as in the protocol."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.pacoh.data import read_stays, split_stays, support_and_query
from ehrmeta.errors import DataError


def test_text_and_parquet_hold_the_same_stays(frame, folder, tmp_path):
    (tmp_path / "set-a").mkdir()
    for stay, rows in frame.groupby("RecordID"):
        clock = [f"{minute // 60:02d}:{minute % 60:02d}" for minute in rows.minute]
        text = pd.DataFrame({"Time": clock, "Parameter": rows.Parameter, "Value": rows.Value})
        text.to_csv(tmp_path / "set-a" / f"{stay}.txt", index=False)
    ours, theirs = (read_stays(path, "HCT") for path in (folder, tmp_path))
    np.testing.assert_array_equal(ours.groups, theirs.groups)
    np.testing.assert_array_equal(ours.y, theirs.y)
    np.testing.assert_allclose(ours.time, theirs.time, rtol=1e-6)


def test_the_published_split_is_in_file_order(folder):
    table = read_stays(folder, "GCS")
    assert table.n_tasks == 650, "stays with too few values are no tasks"
    train, test = split_stays(table, None)
    np.testing.assert_array_equal(np.unique(train.groups), np.arange(100))
    np.testing.assert_array_equal(np.unique(test.groups), np.arange(150, 650))
    for seed in range(2):
        train, test = split_stays(table, seed)
        assert (train.n_tasks, test.n_tasks) == (100, 500)
        assert not set(train.groups) & set(test.groups)


def test_the_first_day_is_the_support_and_the_second_the_query(folder):
    table = read_stays(folder, "GCS")
    support, query = support_and_query(table)
    assert table.time[support].max() <= 24 < table.time[query].min()
    assert np.bincount(table.tasks.codes[support]).min() >= 4
    assert np.bincount(table.tasks.codes[query], minlength=table.n_tasks).min() >= 1


def test_absent_files_are_refused_with_the_address(tmp_path):
    with pytest.raises(DataError, match=r"neither set_a.parquet nor set-a.*physionet.org"):
        read_stays(tmp_path, "GCS")
    (tmp_path / "set_a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="is no parquet file"):
        read_stays(tmp_path, "GCS")


def test_too_few_stays_are_refused(folder):
    table = read_stays(folder, "GCS")
    with pytest.raises(DataError, match="12 stays have enough values; the protocol needs 600"):
        split_stays(table.take(table.tasks.codes < 12), None)
