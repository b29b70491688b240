import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ehrmeta.cli.demo import NOT_ADAPTED, OURS
from ehrmeta.cli.evaluate import comparators
from ehrmeta.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = ROOT / "docs" / "guide"


def blocks(language, page):
    """Code blocks of one language, without the indent of the list they stand in."""
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in fenced]


def run(page):
    """Every Python block of a page, one after the other; what they define."""
    names = {}
    for block in blocks("python", page):
        exec(compile(block, "page.md", "exec"), names)
    return names


def test_the_readme_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 160
    (example,) = blocks("python", README)
    assert len([line for line in example.splitlines() if line]) <= 12


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study().to_csv("visits.csv", index=False)
    names = run(README)
    assert names["patients"].n_tasks == 16
    assert set(names["patients"].n_shots_) == {3}
    assert (tmp_path / "hdl.ehrmeta").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:levels of", "ignore:rows are predicted as the average")
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # of real patients, some are
def test_every_python_block_of_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run((GUIDE / "python.md").read_text(encoding="utf-8"))
    assert names["patients"].n_tasks == 2038
    assert names["patients"].n_shots_.max() == 4
    assert names["table"].n_tasks == 2
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_an_export_becomes_predictions_as_the_guide_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run((GUIDE / "your_own_table.md").read_text(encoding="utf-8"))
    assert names["table"].schema.measured == ("ALT",)
    assert set(names["curve"]["method"]) == {"ehrmeta", "mixed model", "last value"}
    assert list(names["visits"]["hdl"]) == [50.0, 41.0, 52.0, 44.0]


def study():
    """Visits as the README describes them."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(80), 5)
    level, age = rng.normal(50, 8, 80), rng.uniform(40, 70, 80)
    day = np.tile(np.arange(5) * 180, 80) + rng.integers(0, 90, 400)
    columns = {
        "patient": [f"A{number:02d}" for number in patients],
        "day": day,
        "age": (age[patients] + day / 365.25).round(1),
        "sex": rng.choice(["f", "m"], 80)[patients],
        "alt": np.where(rng.random(400) < 0.1, np.nan, rng.integers(20, 60, 400)),
        "hdl": (level[patients] + rng.normal(0, 3, 400)).round(),
    }
    return pd.DataFrame(columns)


def test_the_commands_for_a_csv_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    visits = study()
    page = (GUIDE / "command_line.md").read_text(encoding="utf-8")
    (header,) = (block.splitlines()[0] for block in blocks("csv", page))
    assert ",".join(visits) == header
    is_new, visit = visits.patient >= "A60", visits.groupby("patient").cumcount()
    visits[~is_new].to_csv("visits.csv", index=False)
    visits[is_new & (visit < 2)].to_csv("new_visits.csv", index=False)
    later = visits[is_new & (visit >= 2)].drop(columns=["alt", "hdl"])
    later.to_csv("next_visits.csv", index=False)
    commands = [
        line.removeprefix("ehrmeta ")
        for block in blocks("sh", page)
        for line in block.splitlines()
        if line.startswith("ehrmeta ")
    ]
    names = ["check", "fit", "evaluate", "adapt", "predict", "report"]
    assert [command.split()[0] for command in commands] == names
    commands[1] += " --max-steps 20"
    for command in commands:
        done = CliRunner().invoke(main, shlex.split(command))
        assert done.exit_code == 0, done.output
    predictions = pd.read_csv("predictions.csv")
    assert list(predictions) == ["patient", "day", "prediction", "lower", "upper"]
    assert len(predictions) == len(later)


def test_the_table_has_the_rows_of_the_demo():
    table = re.search(r"<!-- demo -->(.*)<!-- end of demo -->", README, flags=re.DOTALL)
    assert table is not None
    for name in (*comparators(), NOT_ADAPTED, OURS):
        assert f"\n{name}  " in table[1]


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert "docs/patient.png" in links
    assert all((ROOT / link).exists() for link in links)
    assert (ROOT / "docs" / "patient.png").stat().st_size < 200_000
