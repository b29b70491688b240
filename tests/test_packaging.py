import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, folder: Path) -> str:
    """Run a command elsewhere, without what would lead it back to this checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_loads_neither_optuna_nor_matplotlib() -> None:
    program = "import sys, ehrmeta; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = run(sys.executable, "-c", program, folder=ROOT).split()
    assert "ehrmeta" in loaded
    assert not {"optuna", "matplotlib"} & set(loaded)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    run(*build, folder=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_data_sets(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data_sets = [path.parent.name for path in ROOT.glob("datasets/*/card.toml")]
    assert "nafld-hdl" in data_sets
    for name in data_sets:
        assert {
            f"ehrmeta/_datasets/{name}/card.toml",
            f"ehrmeta/_datasets/{name}/data.parquet",
        } <= names
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("ehrmeta/**/*.py")}
    assert modules | {"ehrmeta/py.typed"} <= names
    assert not [name for name in names if name.endswith("prepare.py")]
    assert {name.split("/")[0].split("-")[0].split(".")[0] for name in names} == {"ehrmeta"}


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--no-input", "install"]
    run(*pip, "--no-deps", "--no-index", wheel, folder=folder)
    # The dependencies, but not this checkout: a path file within a path file's folder is not read.
    packages = sysconfig.get_path("purelib", vars={"base": environment})
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import ehrmeta; print(ehrmeta.__file__)", folder=folder)
    assert Path(where.strip()).is_relative_to(environment)
    printed = run(python, "-m", "ehrmeta", "demo", "--quick", folder=folder)
    assert "nafld-hdl" in printed
    assert (environment / "bin" / "ehrmeta").exists()
