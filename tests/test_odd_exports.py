"""Odd files on the command line: the numbers of the plain file, or a message with its column."""

import codecs
import gzip
import re

import numpy as np
import pandas as pd
import pytest

from tests.cli.commands import run

pytestmark = pytest.mark.slow

N, VISITS = 24, 6
ROLES = ["--task", "patient", "--time", "day", "--target", "hdl"]
COMMANDS = ("check", "fit", "predict")
SMALL = [*ROLES, "--algorithm", "maml", "--max-steps", "1"]


def plain():
    """Visits of 24 patients, whose ids have leading zeros."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(N), VISITS)
    return pd.DataFrame(
        {
            "patient": [f"{number:03d}" for number in patient],
            "day": np.tile(np.arange(VISITS) * 30, N),
            "age": rng.integers(30, 80, N)[patient],
            "sex": np.where(patient % 3 > 0, "f", "m"),
            "alt": rng.integers(10, 60, len(patient)),
            "hdl": (50 + rng.normal(0, 9, N)[patient] + rng.normal(0, 3, len(patient))).round(1),
        }
    )


def text(**options):
    return lambda frame: frame.to_csv(index=False, **options).encode()


def change(**columns):
    """A file with columns replaced by functions of themselves."""
    return lambda frame: text()(frame.assign(**{n: make(frame[n]) for n, make in columns.items()}))


def cell(name, value, row=3):
    """A file with another cell."""
    return change(**{name: lambda s: s.astype(object).where(s.index != row, value)})


def rewritten(old, new, count=-1):
    """A file with another text."""
    return lambda frame: text()(frame).replace(old, new, count)


def words(no, yes):
    return change(hdl=lambda s: np.where(s > 50, yes, no))


# The same table in another file: its suffix and its bytes.
SAME = {
    "byte order mark": (".csv", lambda f: codecs.BOM_UTF8 + text()(f)),
    "lines of Windows": (".csv", text(lineterminator="\r\n")),
    "all quoted": (".csv", text(quoting=1)),
    "semicolons": (".csv", text(sep=";")),
    "semicolons, decimal commas": (".csv", text(sep=";", decimal=",")),
    "quoted decimal commas": (".csv", text(quoting=1, decimal=",")),
    "bars": (".csv", text(sep="|")),
    "tabs": (".tsv", text(sep="\t")),
    "tabs in a csv": (".csv", text(sep="\t")),
    "a separator line": (".csv", lambda f: b"sep=;\r\n" + text(sep=";")(f)),
    "compressed": (".csv.gz", lambda f: gzip.compress(text()(f))),
    "utf-16": (".csv", lambda f: f.to_csv(index=False).encode("utf-16")),
    "latin-1": (
        ".csv",
        lambda f: (
            f.assign(sex=f.sex.replace({"m": "männlich"})).to_csv(index=False).encode("cp1252")
        ),
    ),
    "empty lines at the end": (".csv", lambda f: text()(f) + b"\n\n\r\n"),
    "rows of separators at the end": (".csv", lambda f: text()(f) + b",,,,,\n,,,,,\n"),
    "quoted separators": (".csv", change(sex=lambda s: s + ", adult")),
    "quoted line ends": (".csv", change(sex=lambda s: s + "\nadult")),
    "numbered rows": (".csv", lambda f: f.to_csv().encode()),
    "the target first": (".csv", lambda f: text()(f[["hdl", *f.columns[:-1]]])),
    "rows in another order": (".csv", lambda f: text()(f.sample(frac=1, random_state=0))),
    "trailing zeros": (".csv", text(float_format="%.3f")),
    "exponents": (".csv", text(float_format="%e")),
    "decimals in all numbers": (".csv", change(day=lambda s: s.astype(float))),
}
# Levels that the model of the plain table does not know.
RELABELLED = {"latin-1", "quoted separators", "quoted line ends"}
# Ways to write no and yes.
BOTH = {
    "0 and 1": (0, 1),
    "words": ("no", "yes"),
    "capitals": ("No", "Yes"),
    "letters": ("N", "Y"),
    "booleans": (False, True),
    "small booleans": ("false", "true"),
    "great booleans": ("FALSE", "TRUE"),
    "decimals": (0.0, 1.0),
}
# What cannot mean what it says: the column that must be named.
TOLD = {
    "a limit in the target": (cell("hdl", "<5"), "hdl"),
    "a limit in a feature": (cell("alt", ">200"), "alt"),
    "words in the target": (cell("hdl", "lost"), "hdl"),
    "words in a feature": (cell("alt", "n/d"), "alt"),
    "decimal commas and points": (cell("hdl", "48,5"), "hdl"),
    "thousands separators": (change(alt=lambda s: (s * 100).map("{:,}".format)), "alt"),
    "units in cells": (change(hdl=lambda s: s.map("{} mg/dL".format)), "hdl"),
    "a row of units": (rewritten(b"\n", b"\n,d,a,,U/L,mg/dL\n", 1), "patient|hdl|alt|day"),
    "a title above": (lambda f: b"Export of 2024\n\n" + text()(f), "first line"),
    "a row of totals": (lambda f: text()(f) + b"Total,,,,,4711\n", "day"),
    "a header twice": (rewritten(b"alt", b"age", 1), "age"),
    "a header with a space": (rewritten(b"hdl", b"hdl ", 1), "hdl"),
    "a header in capitals": (rewritten(b"hdl", b"HDL", 1), "hdl"),
    "a longer row": (rewritten(b"\n000,30,", b"\n000,30,9,9,"), "line 3"),
    "a cell less": (rewritten(b"\n000,30,", b"\n000,"), "hdl|sex|age"),
    "a missing id": (cell("patient", ""), "patient"),
    "a missing time": (cell("day", ""), "day"),
    "words for times": (cell("day", "soon"), "day"),
    "dates among numbers": (cell("day", "2020-01-01"), "day"),
    "times from a placeholder": (cell("day", 99999999), "day"),
    "a gross error": (cell("hdl", 73519), "hdl"),
    "a repeated visit": (lambda f: text()(pd.concat([f, f[:1]])), "patient"),
    "ids with lost zeros": (cell("patient", "0"), r"patient|id\(s\)"),
    "ids with spaces": (cell("patient", "000 "), r"patient|id\(s\)"),
    "ids with capitals": (
        change(patient=lambda s: ("a" + s).where(s.index != 3, "A000")),
        r"patient|id\(s\)",
    ),
    "a row per id": (change(patient=lambda s: s.index.map("v{:03d}".format)), "patient"),
    "one patient": (lambda f: text()(f[:6]), "patient"),
    "a constant target": (change(hdl=lambda s: 0 * s), "hdl"),
    "a copy of the target": (lambda f: text()(f.assign(alt=f.hdl * 2.5)), "alt"),
    "an infinite value": (cell("alt", "inf"), "alt"),
    "classes that differ in capitals": (
        change(hdl=lambda s: np.where(s > 50, "yes", np.where(s.index % 2, "no", "No"))),
        "hdl",
    ),
    "classes that differ in spaces": (
        change(hdl=lambda s: np.where(s > 50, "yes", np.where(s.index % 2, "no", "no "))),
        "hdl",
    ),
}
# What can be meant of new patients.
OF_TRAINING = {
    *("a row per id", "one patient", "a constant target", "a copy of the target"),
    *("times from a placeholder", "a gross error"),
}


def numbers(folder, command, path):
    """What a command makes of a file, as numbers."""
    if command == "check":
        done = run("check", path, *ROLES)
        return np.array(re.findall(r"^([0-9,]+) rows of (\d+)", done.output, re.MULTILINE)[0])
    model, given = folder / "plain.ehrmeta", ["--support", path]
    if command == "fit":
        model, given = folder / "again.ehrmeta", []
        run("fit", path, *SMALL, "--out", model)
    run("predict", model, path, *given, "--out", folder / "out.csv")
    found = pd.read_csv(folder / "out.csv", dtype={"patient": str})
    return found.sort_values(["patient", "day"]).iloc[:, -1].to_numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "plain.csv").write_bytes(text()(plain()))
    run("fit", folder / "plain.csv", *SMALL, "--out", folder / "plain.ehrmeta")
    (folder / "both.csv").write_bytes(words(0, 1)(plain()))
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    found = {name: numbers(folder, name, folder / "plain.csv") for name in COMMANDS}
    return found | {"both": numbers(folder, "fit", folder / "both.csv")}


@pytest.mark.parametrize(
    ("odd", "command"),
    [(o, c) for o in SAME for c in COMMANDS if c != "predict" or o not in RELABELLED],
)
def test_the_form_of_a_file_does_not_change_a_number(odd, command, folder, expected):
    suffix, write = SAME[odd]
    path = folder / f"odd{suffix}"
    path.write_bytes(write(plain()))
    found = numbers(folder, command, path)
    if command == "check":
        assert found.tolist() == expected["check"].tolist()
    else:
        np.testing.assert_allclose(found, expected[command], rtol=1e-5)


@pytest.mark.parametrize("written", BOTH)
def test_every_way_to_write_no_and_yes_gives_the_same_risks(written, folder, expected):
    path = folder / "both-odd.csv"
    path.write_bytes(words(*BOTH[written])(plain()))
    np.testing.assert_allclose(numbers(folder, "fit", path), expected["both"], rtol=1e-5)


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"])
def test_local_dates_give_the_numbers_of_iso_dates(form, folder):
    limits = {}
    for name, written in (("iso", "%Y-%m-%d"), ("local", form)):
        start = pd.Timestamp("2021-01-14")
        frame = plain()
        frame["day"] = (start + pd.to_timedelta(frame.day, unit="D")).dt.strftime(written)
        frame.to_csv(folder / "dates.csv", index=False)
        done = run("fit", folder / "dates.csv", *SMALL, "--out", folder / "dates.ehrmeta")
        assert done.stderr.count("dates are read as") == (name == "local")
        run("predict", folder / "dates.ehrmeta", folder / "dates.csv", "--out", folder / "out.csv")
        limits[name] = pd.read_csv(folder / "out.csv").iloc[:, -1]
    np.testing.assert_array_equal(limits["local"], limits["iso"])


@pytest.mark.parametrize(
    ("odd", "command"),
    [(o, c) for o in TOLD for c in COMMANDS if c != "predict" or o not in OF_TRAINING],
)
def test_impossible_values_are_reported_with_their_column(odd, command, folder):
    write, named = TOLD[odd]
    path, out = folder / "told.csv", folder / "told.ehrmeta"
    path.write_bytes(write(plain()))
    arguments = {
        "check": ["check", path, *ROLES],
        "fit": ["fit", path, *SMALL, "--out", out],
        "predict": ["adapt", folder / "plain.ehrmeta", path, "--out", out],
    }[command]
    done = run(*arguments, code=None)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    told = [one for one in lines if re.match(r"(Error|Warning|error|warning|!|column)\W", one)]
    told = [one for one in told if re.search(named, one)]
    assert told, done.output
    assert any(re.search(r"[.] [A-Z]", one) for one in told), f"no remedy: {told}"
    if done.exit_code:
        assert command == "check" or len(done.stderr.splitlines()) == 1 or "Warning" in done.stderr
