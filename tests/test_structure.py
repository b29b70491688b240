"""Laws of the project's structure: imports, private names, sizes of files and rooms, tests."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ehrmeta", "benchmarks")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in FILES
}
NAMES = {file: name for name, file in MODULES.items()}


# Attributes that a namedtuple documents as public.
NAMEDTUPLE = {"_replace", "_asdict", "_fields"}
# Objects of other packages, which offer what is read under no public name.
THIRD_PARTY = {
    "ehrmeta/nn/recorded.py": {"target._schema"},  # an operator of torch and its signature
    "ehrmeta/persistence/sklearn_models.py": {
        "model._predictors",  # the trees of HistGradientBoosting
        "model._baseline_prediction",
    },
    "ehrmeta/tuning/study.py": {"trial._trial_id"},  # optuna's storages ask for it
}


def imports_of(file: Path) -> set[str]:
    """Modules of the project that a file imports anywhere: late, relative or for types only."""
    package = NAMES[file].split(".") if file.name == "__init__.py" else NAMES[file].split(".")[:-1]
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            imported |= {_module(source, alias.name) for alias in node.names}
    return (imported & set(MODULES)) - {NAMES[file]}


def _module(source: str, name: str = "") -> str:
    """The file behind ``from source import name``, through what is only re-exported."""
    if f"{source}.{name}" in MODULES:
        return f"{source}.{name}"
    file = MODULES.get(source)
    if file is None or not name or file.name not in ("__init__.py", "registry.py"):
        return source
    stub = file.with_suffix(".pyi")
    for node in ast.parse((stub if stub.exists() else file).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _module(node.module, alias.name)
                if alias.name == "*" and (origin := _module(node.module, name)) != node.module:
                    return origin
    return source


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components of two or more)."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Every module that a module imports directly or through others."""
    reached, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def private_reads(file: Path) -> Iterator[str]:
    """Reads of ``x._name`` where x is not self, cls or super() and the file does not define it."""
    tree = ast.parse(file.read_text())
    defined = {
        node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    } | {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    foreign = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not str(getattr(node, "module", alias.name)).startswith(PACKAGES)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        owner = node.value
        root = owner
        while isinstance(root, ast.Attribute | ast.Call):
            root = root.func if isinstance(root, ast.Call) else root.value
        is_own = isinstance(owner, ast.Name) and owner.id in {"self", "cls"}
        is_super = isinstance(owner, ast.Call) and getattr(owner.func, "id", "") == "super"
        is_foreign = isinstance(root, ast.Name) and root.id in foreign
        is_public = node.attr.startswith("__") or node.attr in NAMEDTUPLE
        if not (is_own or is_super or is_foreign or is_public or node.attr in defined):
            where, read = str(file.relative_to(ROOT)), ast.unparse(node)
            if read not in THIRD_PARTY.get(where, ()):
                yield f"{where}:{node.lineno} {read}"


def test_a_cycle_of_any_length_is_detected():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(graph) == [["a", "b", "c"]]


def test_an_import_counts_wherever_it_stands():
    assert "ehrmeta.data.schema" in imports_of(ROOT / "ehrmeta/data/validation.py")
    assert _module("ehrmeta", "MAML") == "ehrmeta.algorithms.maml"


def test_no_two_files_import_each_other():
    graph = {name: imports_of(file) for name, file in MODULES.items()}
    found = circles(graph)
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_reads_what_is_private_to_another(package):
    reads = [
        read
        for file in FILES
        if NAMES[file].split(".")[0] == package
        for read in private_reads(file)
    ]
    assert not reads, "\n".join(reads)


def test_no_room_is_crowded_and_no_file_is_long():
    rooms = Counter(file.parent.relative_to(ROOT) for file in FILES)
    assert not [str(room) for room, n_files in rooms.items() if n_files > 22]
    assert not [NAMES[file] for file in FILES if len(file.read_text().splitlines()) > 500]


def test_every_module_of_more_than_40_lines_has_its_test_file():
    missing = []
    for file in FILES:
        place = file.relative_to(ROOT)
        room = place.parent.relative_to("ehrmeta") if place.parts[0] == "ehrmeta" else place.parent
        test = ROOT / "tests" / room / f"test_{file.stem.lstrip('_')}.py"
        is_long = len(file.read_text().splitlines()) > 40
        if is_long and not file.name.startswith("__") and not test.exists():
            missing.append(f"{place} -> {test.relative_to(ROOT)}")
    assert not missing, "\n".join(missing)
