"""An answer that did not change is not sent again: 304 is an empty sync that counts as fresh and takes nothing away."""

from typing import Any

import pytest

from connectors.contract import Attestation, Checkpoint, StreamState
from connectors.errors import HeadwaterError, SourceError
from connectors.specs import SourceSpec
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.http.reading import context, ids, only, read, source
from tests.http.serving import Exchange, records, serving
from tests.support import sql

ETAG = {"conditional": True}


def versioned(exchange: Exchange) -> None:
    if exchange.headers.get("if-none-match") == '"v1"':
        exchange.send(b"", 304)
        return
    exchange.json(records(0, 3), etag='"v1"', last_modified="Wed, 01 May 2024 12:00:00 GMT")


def after(spec: SourceSpec) -> StreamState:
    (checkpoint,) = only(Checkpoint, read(spec))
    return StreamState(connector=checkpoint.connector or {})


def test_the_version_of_an_answer_is_asked_for_and_304_says_that_nothing_is_new() -> None:
    with serving(versioned) as server:
        spec = source(server.url, ETAG)
        got = read(spec, after(spec))
        assert server.headers[1]["if-none-match"] == '"v1"'
        assert server.headers[1]["if-modified-since"] == "Wed, 01 May 2024 12:00:00 GMT"
    assert got == [Attestation(rows=None, nothing_new=True)]


def test_a_stream_that_is_declared_otherwise_is_read_again() -> None:
    with serving(versioned) as server:
        state = after(spec := source(server.url, ETAG))
        for more in ({"columns": {"id": {"type": "text"}}}, {"params": {"x": 1}}):
            assert ids(read(source(server.url, {**ETAG, **more}), state)) == [0, 1, 2]
        assert ids(read(source(server.url, {}), state)) == [0, 1, 2]
        # a preview shows records, also of what did not change
        assert ids(read(spec, state, context(page_limit=1))) == [0, 1, 2]


def test_a_304_that_nobody_asked_for_is_an_error() -> None:
    with serving(lambda e: e.send(b"", 304)) as server, pytest.raises(SourceError, match="HTTP 304"):
        read(source(server.url, ETAG))


@pytest.mark.parametrize("write", ["replace", "merge"])
def test_what_did_not_change_stays_in_the_table(write: str, warehouse: Warehouse) -> None:
    stream: dict[str, Any] = {**ETAG, "write": write, "primary_key": "id", "snapshot": write == "merge"}

    def once(spec: SourceSpec) -> SyncResult:
        return sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)

    with serving(versioned) as server:
        spec = source(server.url, stream)
        assert [once(spec).status for _ in range(3)] == ["succeeded", "succeeded_empty", "succeeded_empty"]
        assert len(server.seen) == 3
        query = f"select count(*), count(*) filter (where _deleted) from raw_{spec.source}.things"
        assert sql.run(warehouse.loader_dsn, query) == [(3, 0)]
        reset = f"delete from ops.stream_state where source = '{spec.source}'"
        sql.run(warehouse.admin_dsn, reset)
        assert once(spec).rows.extracted == 3


def test_a_version_of_several_pages_is_refused() -> None:
    with pytest.raises(HeadwaterError, match="conditional: true is about one answer"):
        source("http://127.0.0.1:1", {**ETAG, "pagination": {"type": "page_number"}})
