"""The registry names every algorithm, and the package and the command line read it."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pandas as pd
import pytest
from click.testing import CliRunner

import ehrmeta
from ehrmeta import algorithms
from ehrmeta.algorithms import ALGORITHMS, Algorithm
from ehrmeta.cli.main import main


def concrete(parent: type) -> Iterator[type]:
    """Classes of the package that derive from `parent` and can be made."""
    for child in parent.__subclasses__():
        if child.__module__.startswith("ehrmeta.") and not inspect.isabstract(child):
            yield child
        yield from concrete(child)


def test_every_algorithm_of_the_package_is_registered() -> None:
    for module in pkgutil.walk_packages(algorithms.__path__, "ehrmeta.algorithms."):
        importlib.import_module(module.name)
    assert set(concrete(Algorithm)) == set(ALGORITHMS.values())


def test_the_package_exports_the_registered() -> None:
    for algorithm in ALGORITHMS.values():
        name = algorithm.__name__
        assert getattr(ehrmeta, name) is getattr(algorithms, name) is algorithm
        assert name in ehrmeta.__all__
        assert name in algorithms.__all__
    assert all(hasattr(ehrmeta, name) for name in ehrmeta.__all__)


def test_a_name_is_the_class_name_in_words() -> None:
    assert ALGORITHMS["maml"] is ehrmeta.MAML
    assert ALGORITHMS["meta-sgd"] is ehrmeta.MetaSGD
    assert ALGORITHMS["deep-mixed-effects"] is ehrmeta.DeepMixedEffects
    assert len(ALGORITHMS) == len(set(ALGORITHMS.values()))


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten patients of six visits."""
    X, y, patients = ehrmeta.make_sinusoid(n_tasks=10, n_points=6, random_state=0)
    file = tmp_path_factory.mktemp("visits") / "visits.csv"
    pd.DataFrame({"patient": patients, "dose": X[:, 0], "level": y}).to_csv(file, index=False)
    return str(file)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_fit_takes_every_algorithm_or_says_why_not(name: str, visits: str) -> None:
    out = visits.replace(".csv", f"-{name}.ehrmeta")
    columns = ["--task", "patient", "--target", "level"]
    settings = ["--algorithm", name, "--max-steps", "1", "--out", out]
    ended = CliRunner().invoke(main, ["fit", visits, *columns, *settings])
    if "real" in ALGORITHMS[name].serves:
        assert ended.exit_code == 0, ended.output
        assert type(ehrmeta.MetaRegressor.load(out).algorithm) is ALGORITHMS[name]
    else:
        assert ended.exit_code == 1
        assert "Use MatchingNet, BayesianHead or NeuralProcess" in ended.output


@pytest.mark.parametrize("name", ALGORITHMS)
def test_fit_takes_classes_with_every_algorithm_or_says_why_not(name: str, visits: str) -> None:
    table, out = visits.replace(".csv", "-signs.csv"), visits.replace(".csv", "-signs.ehrmeta")
    frame = pd.read_csv(visits)
    frame.assign(level=(frame.level > 0).map({True: "up", False: "down"})).to_csv(table)
    columns = ["--task", "patient", "--target", "level"]
    settings = ["--algorithm", name, "--max-steps", "1", "--out", out]
    ended = CliRunner().invoke(main, ["fit", table, *columns, *settings])
    if "binary" in ALGORITHMS[name].serves:
        assert ended.exit_code == 0, ended.output
        assert type(ehrmeta.MetaClassifier.load(out).algorithm) is ALGORITHMS[name]
    else:
        assert ended.exit_code == 1
        assert len(ended.stderr.splitlines()) <= 2


@pytest.mark.parametrize("name", ALGORITHMS)
def test_tune_lists_what_it_would_search_of_every_algorithm(name: str, visits: str) -> None:
    columns = ["--task", "patient", "--target", "level"]
    ended = CliRunner().invoke(main, ["tune", visits, *columns, "--algorithm", name, "--list"])
    assert ended.exit_code == 0, ended.output
    ranges = ehrmeta.ranges.declared_ranges(ALGORITHMS[name])
    assert all(f"algorithm__{parameter}" in ended.output for parameter in ranges)
