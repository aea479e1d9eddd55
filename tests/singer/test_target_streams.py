"""singer_sdk's target test streams through our loader: what should load does, what should fail fails."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.specs import SourceSpec, parse_source
from connectors.sync import SyncResult
from tests.airbyte.conftest import dsn, name, sync
from tests.support import sql
from tests.support.programs import environment, programs

pytestmark = pytest.mark.slow
__all__ = ["dsn", "name", "programs"]

LOADS = (
    "array_data", "camelcase", "camelcase_complex_schema", "duplicate_records", "encoded_string_data",
    "multiple_state_messages", "no_primary_keys", "no_primary_keys_append", "optional_attributes", "pk_updates",
    "record_missing_fields", "record_missing_required_property", "schema_no_properties", "schema_updates",
    "special_chars_in_attributes", "user_location_data", "user_location_upsert_data",
)  # fmt: skip
FAILS = ("invalid_schema", "record_before_schema", "record_missing_key_property")


@pytest.fixture(scope="module")
def files() -> Path:
    folder = environment("singer-sdk==0.54.9", "pytest")
    return next(folder.glob("lib/python*/site-packages/singer_sdk/testing/target_test_streams"))


def messages(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def keys_of(said: Sequence[Mapping[str, Any]], stream: str) -> list[str]:
    """As the first schema has them; `pk_updates` has them inside of the schema, where they mean nothing."""
    found = next((one for one in said if one["type"] == "SCHEMA" and one["stream"] == stream), {})
    return list(found.get("key_properties") or ())


def source(name: str, file: Path, folder: Path) -> tuple[SourceSpec, dict[str, str]]:
    """A source whose tap prints the file; our names by the tap's."""
    said = messages(file)
    streams = list(dict.fromkeys(one["stream"] for one in said if "stream" in one))
    names = {stream: f"stream_{number}" for number, stream in enumerate(streams)}
    program = folder / "tap"
    program.write_text(f"#!{sys.executable} -IS\nprint(open({str(file)!r}, encoding='utf-8').read())\n")
    program.chmod(0o755)
    schemas = {one["stream"]: one["schema"] for one in said if one["type"] == "SCHEMA"}
    catalog = folder / "catalog.json"
    entries = [{"tap_stream_id": one, "stream": one, "schema": schemas.get(one, {}), "metadata": []} for one in streams]
    catalog.write_text(json.dumps({"streams": entries}))
    declared = [
        {
            "name": names[stream],
            "stream": stream,
            "max_quarantined": {"rows": 0},
            **({"primary_key": keys, "write": "merge"} if (keys := keys_of(said, stream)) else {"write": "append"}),
        }
        for stream in streams
    ]
    attributes = {
        "source": name,
        "owner": "team:test",
        "connector": {"kind": "singer", "executable": str(program), "catalog": str(catalog)},
        "streams": declared,
    }
    return parse_source(attributes, "tests/streams.yaml"), names


@pytest.mark.parametrize("file", LOADS)
def test_what_a_target_should_load_is_loaded(files: Path, file: str, dsn: str, name: str, tmp_path: Path) -> None:
    path = files / f"{file}.singer"
    spec, names = source(name, path, tmp_path)
    outcomes = sync(spec, dsn)
    assert {stream: outcome for stream, outcome in outcomes.items() if not isinstance(outcome, SyncResult)} == {}
    said = messages(path)
    for stream, ours in names.items():
        records = [one["record"] for one in said if one["type"] == "RECORD" and one["stream"] == stream]
        keys = keys_of(said, stream)
        expected = len({json.dumps([record[key] for key in keys]) for record in records}) if keys else len(records)
        assert sql.run(dsn, f"select count(*) from raw_{name}.{ours}") == [(expected,)]
        outcome = outcomes[ours]
        assert isinstance(outcome, SyncResult)
        assert outcome.rows.extracted == len(records)


@pytest.mark.parametrize("file", FAILS)
def test_what_a_target_should_refuse_is_refused(files: Path, file: str, dsn: str, name: str, tmp_path: Path) -> None:
    spec, _ = source(name, files / f"{file}.singer", tmp_path)
    outcomes = Counter(type(outcome).__name__ for outcome in sync(spec, dsn).values())
    assert "SyncResult" not in outcomes


def test_every_stream_of_the_suite_is_named_here(files: Path) -> None:
    assert sorted(path.stem for path in files.glob("*.singer")) == sorted([*LOADS, *FAILS])
