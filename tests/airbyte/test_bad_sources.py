"""Airbyte sources that misbehave: class, place and next step; what was sealed stays, and so does the position."""

from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ContractError, HeadwaterError, SourceError, TransientError
from connectors.registry import kind
from connectors.sync import SyncResult
from tests.airbyte.conftest import succeeded, sync
from tests.airbyte.scripting import record, scripted, state, status, stream
from tests.support import sql

SEALED = (record("things", 1), record("things", 2), state("things", {"at": 2}))


@pytest.mark.parametrize(
    ("after", "connector", "error_class", "says"),
    [
        (
            [{"do": "big", "size": 50_000_000, "of": state("things", {"at": "BIG"})}],
            {}, ContractError, "a state in a line of 50,000,1",
        ),
        pytest.param(
            [{"do": "big", "size": 2_000_000, "of": state("things", {"at": "BIG"})}, record("things", 3)],
            {}, ContractError, "limit", marks=pytest.mark.slow,
        ),
        pytest.param(
            [record("things", 3), {"do": "hang"}],
            {"stall_timeout": "PT12S"}, TransientError, "nothing came for 12 s", marks=pytest.mark.slow,
        ),
    ],
    ids=["50 MB state", "2 MB state", "hang"],
)  # fmt: skip
def test_what_was_sealed_stays_and_the_failure_is_classified(
    tmp_path: Path,
    dsn: str,
    name: str,
    after: list[Any],
    connector: dict[str, Any],
    error_class: type[HeadwaterError],
    says: str,
) -> None:
    source = scripted(tmp_path, catalog=[stream("things")], reads=[[*SEALED, *after]])

    error = sync(source.spec({"name": "things"}, source=name, **connector), dsn)["things"]

    assert isinstance(error, error_class), repr(error)
    assert says in str(error)
    assert error.hint
    assert len(str(error).splitlines()) <= 6
    assert sql.run(dsn, f"select id from raw_{name}.things order by 1") == [(1,), (2,)]
    position = (
        f"select state -> 'connector' from ops.stream_state where source = '{name}' order by version desc limit 1"
    )
    assert sql.run(dsn, position) == [({"stream_state": {"at": 2}},)]


def test_noise_is_logged_and_a_huge_record_is_quarantined(tmp_path: Path, dsn: str, name: str) -> None:
    huge = {"do": "big", "size": 3_000_000, "of": record("things", 3, v="BIG")}
    said = [
        "Starting ...",
        {"do": "flood", "lines": 5_000},
        *SEALED,
        huge,
        record("things", 4),
        state("things", {"at": 4}),
    ]
    source = scripted(tmp_path, catalog=[stream("things")], reads=[[*said, status("things", "COMPLETE")]])
    settings = {"name": "things", "max_record_bytes": 4096, "max_quarantined": {"share": 1}}
    log: list[str] = []

    outcomes = sync(source.spec(settings, source=name), dsn, log)

    assert succeeded(outcomes)
    assert isinstance(outcomes["things"], SyncResult)
    assert outcomes["things"].rows.quarantined == 1
    assert sql.run(dsn, f"select id from raw_{name}.things order by 1") == [(1,), (2,), (4,)]
    assert any("Starting ..." in line for line in log)
    assert any("more than 2,000 lines on stderr" in line for line in log)
    assert not any("line 2001 of stderr" in line for line in log)


@pytest.mark.parametrize(
    ("catalog", "says"),
    [
        (["things"], "Expected `object`, got `str`"),
        pytest.param({"things": {}}, "Expected `array`, got `object`", marks=pytest.mark.slow),
        pytest.param([{"json_schema": {}}], "missing required field `name`", marks=pytest.mark.slow),
        pytest.param([stream("things", json_schema={"properties": [1]})], "properties", marks=pytest.mark.slow),
    ],
)
def test_a_catalog_that_breaks_the_protocol_is_the_sources_fault(tmp_path: Path, catalog: Any, says: str) -> None:
    source = scripted(tmp_path, catalog=catalog, reads=[])

    with pytest.raises(SourceError, match="its catalog breaks the protocol") as caught:
        kind("airbyte").open(source.spec()).discover()

    assert says in str(caught.value)
