"""The numbered tutorials; tests/tuning runs those on tuning."""

import runpy
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import optuna
import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("[0-9]*.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.DataWarning")  # shown on purpose
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # of real patients, some are
@pytest.mark.parametrize("path", TUTORIALS, ids=[path.stem for path in TUTORIALS])
def test_tutorials_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("Agg")  # no window
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    assert capsys.readouterr().out
    for picture in tmp_path.rglob("*.png"):
        assert picture.stat().st_size > 5_000


def test_tutorials_have_cells_and_a_title() -> None:
    assert TUTORIALS
    for path in TUTORIALS:
        # A cell of prose for editors, and the module's docstring for the gallery of the docs.
        first, quotes, title, underline, *lines = path.read_text(encoding="utf-8").splitlines()
        assert (first, quotes) == ("# %% [markdown]", '"""'), path.name
        assert underline == "=" * len(title), path.name
        assert "# %%" in lines, path.name
