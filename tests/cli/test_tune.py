import runpy
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import ehrmeta
from ehrmeta.cli.main import main
from ehrmeta.data import load_dataset
from ehrmeta.tuning.search import DEFAULT_STORAGE

TUTORIALS = sorted((Path(__file__).parents[2] / "tutorials").glob("tune_*.py"))
SMALL = ["--algorithm", "maml", "--search", "algorithm__inner_lr", "--folds", "2", "--max-steps"]
SMALL += ["2", "--shots", "2"]


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some patients in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    table = load_dataset("pbcseq")
    few = table.take(table.tasks.codes < 40)
    frame = few.X[["age"]].assign(patient=few.groups, day=few.time, bili=few.y)
    frame.to_csv("visits.csv", index=False)
    return tmp_path / "visits.csv"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tune", *arguments])


ROLES = ["visits.csv", "--task", "patient", "--time", "day", "--target", "bili"]


def test_a_study_is_resumed_and_joined_without_its_table(visits: Path) -> None:
    first = run(*ROLES, *SMALL, "--trials", "2", "--pictures", "pictures", "--out", "b.ehrmeta")
    assert first.exit_code == 0, first.output
    assert "best of 2 trials: rmse_macro" in first.output
    assert (visits.parent / "b.ehrmeta").exists()
    assert (visits.parent / "pictures" / "history.png").exists()
    joined = run("--study", "visits")
    assert joined.exit_code == 0, joined.output
    assert "best of 2 trials" in joined.output
    more = run("--study", "visits", "--trials", "3")
    assert "best of 3 trials" in more.output


@pytest.mark.usefixtures("visits")
def test_ctrl_c_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ehrmeta.cli.tune.search", stopped)
    result = run(*ROLES, *SMALL)
    assert result.exit_code == 1
    assert "stopped. Run the same command again to resume." in result.output


@pytest.mark.usefixtures("visits")
def test_the_list_shows_ranges_and_conditions() -> None:
    shown = run("pbcseq", "--algorithm", "maml", "--algorithm", "meta-sgd", "--list").output
    assert "MetaSGD__inner_lr" in shown
    assert "0.001 to 0.5, log scale" in shown
    assert "algorithm = MetaSGD" in shown


@pytest.mark.parametrize(
    "algorithms", [["maml"], pytest.param(["maml", "meta-sgd"], marks=pytest.mark.slow)]
)
def test_an_exported_script_runs(visits: Path, algorithms: list[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = [word for name in algorithms for word in ("--algorithm", name)]
    options = ["--trials", "2", "--folds", "2", "--max-steps", "2", "--shots", "2"]
    written = run(*ROLES, *chosen, *options, "--export-script", "search.py", "--storage", "s.log")
    assert written.exit_code == 0, written.output
    script = visits.parent / "search.py"
    runpy.run_path(str(script), run_name="__main__")
    storage = "sqlite:///s.log.db"
    study = optuna.load_study(study_name="visits-script", storage=storage)
    assert len(study.trials) == 2
    study._storage.remove_session()


@pytest.mark.usefixtures("visits")
def test_an_exported_script_has_the_chosen_error_and_no_password() -> None:
    server = "postgresql://me:secret@host/base"
    written = run(
        "pbcseq", "--scoring", "mae_macro", "--storage", server, "--export-script", "s.py"
    )
    assert written.exit_code == 0, written.output
    script = Path("s.py").read_text()
    assert 'metric="mae_macro"' in script
    assert "postgresql+psycopg://me@host/base" in script
    assert "secret" not in script
    server = "postgresql://host/base?user=me&password=secret"
    refused = run("pbcseq", "--storage", server, "--export-script", "t.py")
    assert refused.exit_code != 0
    assert "PGPASSWORD" in refused.output
    assert "secret" not in refused.output


@pytest.mark.usefixtures("visits")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ROLES, *SMALL, "--search", "algorithm__iner_lr"], "Did you mean 'algorithm__inner_lr'"),
        ([*ROLES, *SMALL, "--search", "learning_rate=0.1:0.1"], "is empty"),
        (
            [*ROLES, "--scoring", "adapt_ms", "--export-script", "s.py"],
            "Pass one --scoring of rmse_macro",
        ),
        ([*ROLES, *SMALL, "--trials", "0"], "0 is not in the range"),
        ([*ROLES, *SMALL, "--storage", "no/folder/s.db"], "is not a file in an existing folder"),
        ([*ROLES, *SMALL, "--search", "learning_rate="], "has no range: write learning_rate=LOW"),
        ([*ROLES, *SMALL, "--pictures", "visits.csv"], "cannot create the folder"),
        (["--study", "nobody", "--storage", "s.db"], "there is no study file 's.db'"),
        ([], "pass TABLE, or --study"),
        (["visits.csv"], "pass --task and --target"),
    ],
)
def test_wrong_calls_end_in_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
    assert [path.name for path in Path().iterdir()] == ["visits.csv"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:levels of")  # of forty patients
@pytest.mark.parametrize("path", TUTORIALS, ids=[path.stem for path in TUTORIALS])
def test_tutorials_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    small = load_dataset("pbcseq")
    small = small.take(np.isin(small.groups, np.unique(small.groups)[:40]))
    monkeypatch.setattr(ehrmeta, "load_dataset", lambda _: small)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.usefixtures("visits")
def test_classes_are_searched_by_their_log_loss() -> None:
    table = pd.read_csv("visits.csv")
    table = table.assign(bili=np.where(table.bili > 1.5, "high", "normal"))
    table.to_csv("visits.csv", index=False)
    done = run(*ROLES, *SMALL, "--trials", "2")
    assert done.exit_code == 0, done.output
    assert "best of 2 trials: log_loss" in done.output
    listed = run(*ROLES, *SMALL, "--list")
    assert listed.exit_code == 0, listed.output
    written = run(*ROLES, *SMALL, "--trials", "2", "--export-script", "search.py")
    assert written.exit_code == 0, written.output
    runpy.run_path("search.py", run_name="__main__")
    study = optuna.load_study(study_name="visits-script", storage="sqlite:///ehrmeta-studies.db")
    scripted = [trial.value for trial in study.trials]
    study._storage.remove_session()
    assert 0 < min(scripted) < 1
    assert "classes are scored by" in run(*ROLES, *SMALL, "--scoring", "rmse_macro").output


@pytest.mark.usefixtures("visits")
def test_default_shots_are_those_that_the_patients_have() -> None:
    table = pd.read_csv("visits.csv")
    table[table.groupby("patient").cumcount() < 4].to_csv("visits.csv", index=False)
    written = run(*ROLES, *SMALL[:-2], "--export-script", "search.py")
    assert written.exit_code == 0, written.output
    assert "KShotScorer(shots=(1, 3)," in Path("search.py").read_text()


def test_the_help_shows_the_default_storage() -> None:
    assert f"[default:{DEFAULT_STORAGE}]" in "".join(run("--help").output.split())
