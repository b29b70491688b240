"""A write that harms is noticed, and one that does not is let pass."""

import errno

import pandas as pd
import pytest

from benchmarks.reliability.faults import _survives
from ehrmeta.data.table_file import write_frame
from ehrmeta.errors import BundleError


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_table_survives_a_full_disk(step):
    frame = pd.DataFrame({"prediction": [1.0]})
    assert _survives(
        lambda path: write_frame(frame, path.rename(path.with_suffix(".csv"))), step, errno.ENOSPC
    )


def test_a_write_in_place_is_noticed():
    def write(path):
        path.chmod(0o600)
        path.unlink()
        raise BundleError("the disk is full")

    assert not _survives(write, "fsync", errno.ENOSPC)
    assert not _survives(lambda path: None, "fsync", errno.EIO), "no error was raised"
