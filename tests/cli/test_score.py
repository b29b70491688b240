"""The command that scores a folder."""

import pandas as pd

from tests.cli.commands import failure, run


def parts_of(folder, visits):
    """Two parts of new patients: two visits with the target, the others without."""
    new = visits[visits.patient >= "030"]
    rows = new.assign(hdl=new.hdl.mask(new.groupby("patient").cumcount() >= 2))
    source = folder / "in"
    source.mkdir()
    rows[rows.patient < "035"].to_csv(source / "a.csv", index=False)
    rows[rows.patient >= "035"].to_parquet(source / "b.parquet", index=False)
    return source


def test_a_folder_has_the_predictions_of_adapt_and_predict(folder, visits, tmp_path):
    source, out = parts_of(tmp_path, visits), tmp_path / "out"
    done = run("score", folder / "hdl.ehrmeta", source, "--out", out)
    assert done.stdout == f"scored 2 parts (40 predictions), saved {out}\n"
    assert "a.csv: 30 rows, 20 predictions" in done.stderr
    scored = pd.concat(
        [pd.read_csv(out / "a.csv", dtype={"patient": "str"}), pd.read_parquet(out / "b.parquet")]
    )
    rows = visits[visits.patient >= "030"]
    later = rows[rows.groupby("patient").cumcount() >= 2]
    later.drop(columns=["hdl", "crp"]).to_csv(tmp_path / "later.csv", index=False)
    expected = tmp_path / "expected.csv"
    run(
        *("predict", folder / "hdl.ehrmeta", tmp_path / "later.csv", "--out", expected),
        *("--support", folder / "first.csv"),
    )
    pd.testing.assert_frame_equal(
        scored.reset_index(drop=True), pd.read_csv(expected, dtype={"patient": "str"}), rtol=1e-5
    )
    again = run("score", folder / "hdl.ehrmeta", source, "--out", out)
    assert again.stdout == f"scored 0 parts (0 predictions), 2 were finished before, saved {out}\n"


def test_a_failed_part_is_told_with_its_name_and_the_status_is_one(folder, visits, tmp_path):
    source = parts_of(tmp_path, visits)
    (source / "b.parquet").write_bytes(b"PAR1 and nothing else")
    done = run("score", folder / "hdl.ehrmeta", source, "--out", tmp_path / "out", code=1)
    assert "Error: 1 parts failed. b.parquet: cannot read it: it is damaged" in done.stderr
    assert (tmp_path / "out" / "a.csv").exists()
    assert "there is no folder" in failure(
        *("score", folder / "hdl.ehrmeta", tmp_path / "none", "--out", tmp_path / "out")
    )
