"""Manual, schema and examples say what the model says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from msrecd.config import check, load
from msrecd.config.manual import TABLES, default_of, refresh
from msrecd.config.model import Config
from msrecd.config.schema import schema, text
from msrecd.config.tables import FlagOr, ListOf, Table, keys_of
from msrecd.daemon.checks import config_checks

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "configuration.md"
EXAMPLES = sorted((ROOT / "config").glob("*.toml"))


@pytest.mark.promise("schema-of-the-configuration")
def test_schema_in_docs_is_current() -> None:
    assert (ROOT / "docs/schemas/config.schema.json").read_text("utf-8") == text(), (
        "run: python -m msrecd.config.schema > docs/schemas/config.schema.json"
    )


def test_schema_is_a_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())


def test_manual_is_current() -> None:
    written = MANUAL.read_text("utf-8")
    assert refresh(written) == written, "run: python -m msrecd.config.manual docs/configuration.md"


def test_manual_has_a_table_for_each_table_of_the_model() -> None:
    assert re.findall(r"<!-- keys: (\S+) -->", MANUAL.read_text("utf-8")) == list(TABLES)


def models_below(model: type) -> set[type]:
    found = {model}
    for key in keys_of(model).values():
        kind = key.kind
        while isinstance(kind, FlagOr | ListOf):
            kind = kind.other if isinstance(kind, FlagOr) else kind.item
        if isinstance(kind, Table):
            found |= models_below(kind.model)
    return found


def test_every_table_of_the_model_is_in_the_manual() -> None:
    assert models_below(Config) == set(TABLES.values())


def test_a_stale_table_of_the_manual_is_noticed() -> None:
    stale = MANUAL.read_text("utf-8").replace("`chunk_duration`", "`chunk_length`")
    assert refresh(stale) != stale


def test_defaults_are_shown_as_one_writes_them() -> None:
    recorder = keys_of(TABLES["recorder"])
    assert default_of(recorder["chunk_duration"]) == '`"1m"`'
    assert default_of(recorder["autostart"]) == "`false`"
    assert default_of(recorder["name"]) == "**required**"


def test_there_are_examples() -> None:
    assert [path.name for path in EXAMPLES] == ["audio-only.toml", "demo.toml", "msrecd.toml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_valid(path: Path) -> None:
    assert check(path, checks=config_checks()) == []
    assert load(path).recorders


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.promise("schema-of-the-configuration")
def test_example_fits_the_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), schema())


def test_schema_refuses_what_the_reader_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    good = {"recorder": [{"name": "a", "audio": True}]}
    assert validator.is_valid(json.loads(json.dumps(good)))
    for change in ({"name": "A"}, {"colour": 1}, {"timeslice": 5}, {"audio": {"width": 3}}, {"chunk_max_size": "1"}):
        assert not validator.is_valid({"recorder": [good["recorder"][0] | change]}), change
