"""Airbyte sources from PyPI, a manifest, and a source of ours that is exported, read by the kind `airbyte`."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.errors import TransientError
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.together import Outcome, sync_together
from tests.airbyte.conftest import succeeded, sync
from tests.cli.conftest import Project, project
from tests.export.serving import ORDERS, SOURCE, TOKEN, shop
from tests.support import sql
from tests.support.programs import programs

pytestmark = pytest.mark.slow
FAKER = {"package": "airbyte-source-faker==7.2.1", "executable": "source-faker"}
SMOKE = {"package": "airbyte-source-smoke-test==0.1.2", "executable": "source-smoke-test"}
__all__ = ["programs", "project"]


def source(name: str, connector: Mapping[str, Any], *streams: Mapping[str, Any]) -> SourceSpec:
    stanza = {"kind": "airbyte", **connector}
    attributes = {"source": name, "owner": "team:test", "connector": stanza, "streams": list(streams)}
    return parse_source(attributes, "tests/real.yaml")


def count(dsn: str, table: str) -> tuple[int, int]:
    """Rows and different keys."""
    return sql.run(dsn, f"select count(*), count(distinct id) from raw_{table}")[0]


def test_the_faker_is_checked_discovered_and_read_onwards(dsn: str, name: str) -> None:
    settings = {"count": 300, "seed": 7, "records_per_slice": 100, "always_updated": False}
    spec = source(
        name,
        {**FAKER, "config": settings},
        {"name": "users", "primary_key": "id", "write": "merge"},
        {"name": "products"},
    )
    with kind("airbyte").open(spec) as connector:
        assert "succeeded" in connector.check()
        offered = {stream.name: stream for stream in connector.discover()}
    assert offered["users"].primary_key == ("id",)
    assert succeeded(sync(spec, dsn))
    assert count(dsn, f"{name}.users") == (300, 300)
    products = count(dsn, f"{name}.products")
    assert products[0] == products[1] > 0
    again = sync(spec, dsn)
    assert succeeded(again)
    assert [outcome.rows.loaded for outcome in again.values() if isinstance(outcome, SyncResult)] == [0, 0]
    assert count(dsn, f"{name}.users") == (300, 300)


def test_what_the_killed_faker_had_sealed_stays_and_the_next_sync_completes_it(dsn: str, name: str) -> None:
    """The faker itself begins anew whatever its state says, so its rows are merged."""
    settings = {"count": 20_000, "seed": 7, "records_per_slice": 500, "parallelism": 1}
    stream = {"name": "users", "primary_key": "id", "write": "merge", "window": {"rows": 1_000}}
    spec = source(name, {**FAKER, "config": settings}, stream)
    outcome: list[Mapping[str, Outcome]] = []
    has_read = threading.Event()
    progress = Progress(on_rows=lambda rows: has_read.set() if rows >= 2_000 else None)
    request = SyncRequest(spec, spec.streams[0], trigger="cli")
    thread = threading.Thread(
        target=lambda: outcome.append(sync_together([request], dsn, {"users": progress}, lambda line: None))
    )
    thread.start()
    assert has_read.wait(600)
    children = psutil.Process().children(recursive=True)
    (victim, *_) = [child for child in children if "source-faker" in " ".join(child.cmdline()[:2])]
    os.kill(victim.pid, signal.SIGKILL)
    thread.join()
    assert isinstance(outcome[0]["users"], TransientError), outcome
    rows, keys = count(dsn, f"{name}.users")
    assert 0 < rows == keys < 20_000
    assert rows % 500 == 0
    assert succeeded(sync(spec, dsn))
    assert count(dsn, f"{name}.users") == (20_000, 20_000)


def test_the_smoke_tests_streams_are_loaded(dsn: str, name: str) -> None:
    names = {
        "basic_types": "basic_types", "timestamps": "timestamp_types", "decimals": "large_decimals_and_numbers",
        "nested": "nested_json_objects", "nulls": "null_handling", "columns": "column_naming_edge_cases",
        "camel": "CamelCaseStreamName", "unions": "union_types", "nothing": "empty_stream",
        "unicode": "unicode_and_special_strings",
    }  # fmt: skip
    streams = [{"name": ours, "stream": theirs, "write": "replace"} for ours, theirs in names.items()]
    spec = source(name, SMOKE, *({**stream, "allow_empty": True} for stream in streams))
    outcomes = sync(spec, dsn)
    assert succeeded(outcomes)
    read = {stream: outcome.rows for stream, outcome in outcomes.items() if isinstance(outcome, SyncResult)}
    assert {
        stream: (rows.quarantined, rows.extracted == rows.loaded) for stream, rows in read.items()
    } == dict.fromkeys(names, (0, True))
    assert read["nothing"].loaded == 0
    assert min(rows.loaded for stream, rows in read.items() if stream != "nothing") >= 1
    again = sync(spec, dsn)
    assert succeeded(again)
    assert {one: outcome.rows.loaded for one, outcome in again.items() if isinstance(outcome, SyncResult)} == {
        one: rows.loaded for one, rows in read.items()
    }


def test_a_manifest_is_read_and_goes_on_from_its_state(dsn: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    with shop() as api:
        config = {"base_url": api.url, "api_token": "env:SHOP_TOKEN"}
        manifest = str(Path(__file__).parent / "manifest.yaml")
        stream = {"name": "orders", "primary_key": "id", "write": "merge"}
        spec = source(name, {"manifest": manifest, "config": config}, stream)
        with kind("airbyte").open(spec) as connector:
            assert "succeeded" in connector.check()
        assert succeeded(sync(spec, dsn))
        assert count(dsn, f"{name}.orders") == (len(ORDERS), len(ORDERS))
        before = len(api.requests)
        assert succeeded(sync(spec, dsn))
        assert all("since=2024-01-05" in request for request in api.requests[before:])
        assert len(api.requests) > before


def test_a_source_of_ours_that_is_exported_is_read_as_any_other(
    dsn: str, name: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.source(SOURCE.replace("    - {name: lost, path: /lost, records: data}\n", ""))
    program = tmp_path / "export-airbyte"
    command = f'{sys.executable} -m platform_assets.cli export airbyte shop "$@"'
    program.write_text(f"#!/bin/sh\nexport PYTHONPATH={project.root}\nexec {command}\n")
    program.chmod(0o755)
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    with shop() as api:
        config = {"SHOP_URL": api.url, "SHOP_TOKEN": "env:SHOP_TOKEN"}
        stream = {"name": "orders", "primary_key": "id", "write": "merge"}
        spec = source(name, {"executable": str(program), "config": config}, stream)
        assert succeeded(sync(spec, dsn))
        assert count(dsn, f"{name}.orders") == (len(ORDERS), len(ORDERS))
        assert succeeded(sync(spec, dsn))
        assert "since=2024-01-05" in api.requests[-1]
    (state,) = sql.run(
        dsn, f"select state from ops.stream_state where source = '{name}' order by version desc limit 1"
    )[0]
    assert json.dumps(state).count("2024-01-05T00:00:00Z") == 1
