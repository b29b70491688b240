"""Schemas as TOML files: written, read back, and refused where damaged."""

import pytest

from ehrmeta.data import Clock, Feature, Outcome, Schema
from ehrmeta.data.toml_file import read_toml, write_toml
from ehrmeta.errors import SchemaError

SCHEMA = Schema(
    (
        Feature("glucose", role="measured", unit="mg/dL", low=20, high=600),
        Feature("ward", "categorical"),
    ),
    Outcome("hdl", unit="mg/dL"),
    task="patient",
    time=Clock("day"),
    outcome_time="known",
    treatment="arm",
)


def test_a_schema_survives_its_toml_file(tmp_path):
    odd = Schema(
        (Feature('a "quoted"\\name\n', label="µ\x7f", low=-1e-9), Feature("b", kind="binary")),
        Outcome("y", resolution=0.5, transform="log"),
        task="id",
        time=Clock("t", origin="2020-01-01", is_feature=False),
    )
    for schema in (SCHEMA, odd):
        schema.to_toml(tmp_path / "schema.toml")
        assert Schema.from_toml(tmp_path / "schema.toml") == schema


@pytest.mark.parametrize("content", ["task = ", "[[features]]\nnme = 'x'", None])
def test_a_broken_toml_file_is_an_error_that_says_what(tmp_path, content):
    path = tmp_path / "schema.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SchemaError, match=r"schema.toml|nme"):
        Schema.from_toml(path)


def test_a_schema_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(SchemaError, match="cannot write"):
        SCHEMA.to_toml(tmp_path)


def test_what_is_empty_is_left_out(tmp_path):
    write_toml({"a": 1, "b": None, "c": "", "d": [], "e": {"f": True, "g": None}}, tmp_path / "t")
    assert read_toml(tmp_path / "t") == {"a": 1, "e": {"f": True}}
