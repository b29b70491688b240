"""Packages that import a name when it is first read."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ehrmeta

ROOT = Path(ehrmeta.__file__).parent
PACKAGES = [
    ".".join(["ehrmeta", *stub.parent.relative_to(ROOT).parts])
    for stub in sorted(ROOT.rglob("__init__.pyi"))
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_listed_name_is_read_and_hides_no_module(name: str):
    package = import_module(name)
    modules = {file.stem for file in Path(str(package.__file__)).parent.iterdir()}
    assert {"__all__", *package.__all__} <= set(dir(package))
    assert not modules & set(package.__all__), "whichever is imported last would win"
    for public in package.__all__:
        value = getattr(package, public)
        assert value is vars(package)[public], "read once, then kept"


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unknown_name_is_refused_as_by_any_module(name: str):
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        getattr(import_module(name), "nothing")  # noqa: B009


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, ehrmeta; print(sorted({'torch', 'sklearn', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_a_star_import_brings_the_algorithms():
    names: dict[str, object] = {}
    exec("from ehrmeta import *", names)
    assert names["MetaSGD"] is ehrmeta.MetaSGD
    assert set(ehrmeta.__all__) <= set(names)
