"""What a Singer tap says reaches the warehouse as it is meant; each stream has an outcome and a state of its own."""

import gzip
import hmac
import json
from pathlib import Path

import pytest

from connectors.contract import JsonRecords, ReadContext, StreamState
from connectors.errors import ConfigError
from connectors.registry import kind
from tests.singer.conftest import MakeTap
from tests.singer.test_bad_taps import eventually_gone
from tests.support.tapping import record, result, schema, state

SHAPE = {"properties": {"n": {"type": "integer"}}}


def test_streams_of_one_run_have_tables_results_and_states_of_their_own(
    tap: MakeTap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_SECRET", "not for taps")
    monkeypatch.setenv("SHOP_TOKEN", "hush-hush")
    shop = tap({"env": {"TOKEN": "env:SHOP_TOKEN"}}, orders={}, items={"stream": "order-items"})
    tables = {"orders": 250, "order-items": 30}

    first = shop.sync({"tables": tables})

    assert {name: result(one).rows.loaded for name, one in first.items()} == {"orders": 250, "items": 30}
    assert shop.rows("orders") == [(n,) for n in range(1, 251)]
    assert shop.position("items") == {"stream": "order-items", "bookmark": {"replication_key_value": 30}}

    # a subset: the catalog selects it alone, and the tap gets the bookmarks of the other stream too
    again = shop.sync({"tables": {"orders": 260, "order-items": 99}}, "orders")

    assert {name: result(one).rows.loaded for name, one in again.items()} == {"orders": 10}
    call = shop.calls[-1]
    assert call["given"]["--state"] == {
        "bookmarks": {"orders": {"replication_key_value": 250}, "order-items": {"replication_key_value": 30}}
    }
    assert [entry["stream"] for entry in call["given"]["--catalog"]["streams"] if entry["selected"]] == ["orders"]
    assert set(call["modes"].values()) == {"0o600"}
    assert call["env"]["TOKEN"] == "hush-hush"
    assert "PLATFORM_SECRET" not in call["env"]
    assert not list(Path(call["env"]["HOME"]).parent.iterdir()), "a folder was left behind"


def test_state_may_come_anywhere_and_a_schema_may_change(tap: MakeTap) -> None:
    shop = tap(orders={"primary_key": "n", "write": "merge"})

    outcome = shop.say(
        state(orders={"at": 0}),
        schema("orders", n={"type": "integer"}, at={"type": ["null", "string"], "format": "date-time"}),
        record("orders", n=1, at="2024-05-06T07:08:09"),
        schema("orders", n={}, note={"type": ["object", "string"]}, code={"type": ["string", "integer"]}),
        record("orders", n=2, note={"a": 1}, code="7"),
        record("orders", n=3, note="plain", code=8),
        record("orders", n=1, code="now"),
        state(orders={"at": 3}),
    )  # fmt: skip

    rows = result(outcome["orders"]).rows
    assert (rows.extracted, rows.loaded, rows.deduplicated) == (4, 3, 1)
    assert {column.name: column.type for column in result(outcome["orders"]).columns if column.name[0] != "_"} == {
        "n": "bigint", "at": "timestamp with time zone", "note": "jsonb", "code": "text",
    }  # fmt: skip
    assert shop.rows("orders", "n, note, code") == [(1, None, "now"), (2, {"a": 1}, "7"), (3, "plain", "8")]


def test_a_deletion_time_marks_the_row_deleted(tap: MakeTap) -> None:
    shop = tap(orders={"primary_key": "n", "write": "merge"})
    fields = schema(
        "orders", n={"type": "integer"}, _sdc_deleted_at={"type": ["null", "string"], "format": "date-time"}
    )

    shop.say(fields, record("orders", n=1, _sdc_deleted_at=None), record("orders", n=2, _sdc_deleted_at=None))
    result(shop.say(fields, record("orders", n=2, _sdc_deleted_at="2024-01-01T00:00:00Z"))["orders"])

    assert shop.rows("orders", "n, _deleted") == [(1, False), (2, True)]


def test_a_new_version_replaces_the_old_rows_only_when_the_run_ends_in_order(tap: MakeTap) -> None:
    shop = tap(orders={"primary_key": "n", "write": "merge", "deletes": "hard"})
    fields = schema("orders", n={"type": "integer"})
    activate = {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 2}
    result(shop.say(fields, *(record("orders", 1, n=n) for n in (1, 2, 3)))["orders"])

    broken = shop.say(
        fields, activate, record("orders", 2, n=1), state(orders={"at": 1}), {"do": "fail:ValueError: no"}
    )
    assert isinstance(broken["orders"], Exception)
    assert shop.rows("orders") == [(1,), (2,), (3,)]

    done = result(shop.say(fields, activate, *(record("orders", 2, n=n) for n in (1, 4)), activate)["orders"])
    assert shop.rows("orders", "n, _sdc_table_version") == [(1, 2), (4, 2)]
    assert done.rows.deleted == 2


def test_an_append_takes_the_rows_of_an_old_version_away(tap: MakeTap) -> None:
    shop = tap(orders={"write": "append", "deletes": "hard"})
    fields = schema("orders", n={"type": "integer"})
    result(shop.say(fields, record("orders", 1, n=1), record("orders", 1, n=2))["orders"])
    activate = {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 2}

    done = result(shop.say(fields, record("orders", 2, n=2), activate)["orders"])

    assert shop.rows("orders", "n, _sdc_table_version") == [(2, 2)]
    assert done.rows.deleted == 2


def test_batches_are_files_of_records(tap: MakeTap, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl.gz"
    path.write_bytes(
        gzip.compress(b"".join(json.dumps({"n": n, "v": {"deep": n}}).encode() + b"\n" for n in range(500)))
    )
    shop = tap(orders={"flatten": 1})

    outcome = shop.say(
        schema("orders", n={"type": "integer"}, v={"type": "object", "properties": {"deep": {"type": "integer"}}}),
        {"type": "BATCH", "stream": "orders", "manifest": [path.as_uri()],
         "encoding": {"format": "jsonl", "compression": "gzip"}},
        state(orders={"at": 500}),
    )  # fmt: skip

    assert result(outcome["orders"]).rows.loaded == 500
    assert shop.rows("orders", "sum(n), sum(v_deep)") == [(124750, 124750)]
    assert path.exists(), "a file of somebody else's folder is not ours to delete"


def test_records_are_renamed_flattened_and_stripped_of_blocked_columns(tap: MakeTap) -> None:
    shop = tap(
        orders={
            "rename": {"Nr": "n"}, "flatten": 1, "columns": {"card": {"rule": "block"}, "n": {"type": "bigint"}},
            "select": ["Nr", "to", "card"], "metadata": {"view-key-properties": ["Nr"]}, "replication_key": "Nr",
        }
    )  # fmt: skip
    properties = {"Nr": {"type": "integer"}, "to": {"type": "object"}, "card": {}, "else": {"type": "string"}}

    outcome = shop.say(
        schema("orders", **properties),
        record("orders", Nr=1, to={"city": "Oslo", "at": {"lat": 1}}, card="4111"),
        properties=properties,
    )

    assert result(outcome["orders"]).rows.loaded == 1
    assert shop.rows("orders", "n, to_city, to_at") == [(1, "Oslo", {"lat": 1})]
    names = {column.name for column in result(outcome["orders"]).columns}
    assert "card" not in names
    (entry,) = shop.calls[-1]["given"]["--catalog"]["streams"]
    chosen = {tuple(item["breadcrumb"]): item["metadata"] for item in entry["metadata"]}
    assert {path[-1]: about["selected"] for path, about in chosen.items() if path} == {
        "Nr": True, "to": True, "card": False, "else": False,
    }  # fmt: skip
    root = chosen[()]
    assert (root["replication-method"], root["replication-key"]) == ("INCREMENTAL", "Nr")
    assert root["view-key-properties"] == ["Nr"]


def test_a_rule_holds_for_a_column_that_flattening_makes(tap: MakeTap) -> None:
    shop = tap(orders={"flatten": 1, "columns": {"to_city": {"rule": "block"}, "to_name": {"rule": "mask"}}})
    shop.say(
        schema("orders", n={"type": "integer"}), record("orders", n=1, to={"city": "Oslo", "name": "Ann", "nr": 2})
    )

    assert shop.rows("orders", "n, to_name, to_nr") == [(1, "***", 2)]
    assert "Oslo" not in str(shop.rows("orders", "to_jsonb(orders)"))


def test_two_fields_that_flattening_makes_one_fail_their_stream(tap: MakeTap) -> None:
    shop = tap(orders={"flatten": 1})
    outcome = shop.say(schema("orders", n={"type": "integer"}), record("orders", n=1, to={"city": "Oslo"}, to_city="x"))

    assert "two fields are column to_city once the record is flat" in str(outcome["orders"])


def test_messages_and_bookmarks_may_call_a_stream_by_any_of_its_names(tap: MakeTap, tmp_path: Path) -> None:
    entry = {"tap_stream_id": "public-orders", "stream": "orders", "stream_alias": "sales", "schema": SHAPE,
             "metadata": [{"breadcrumb": [], "metadata": {"schema-name": "shop"}}]}  # fmt: skip
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"streams": [entry]}))
    maps = {"public-orders": {"__alias__": "articles"}}
    names = ("public-orders", "orders", "sales", "shop-orders", "articles")
    shop = tap({"catalog": str(catalog)}, ours={"stream": "public-orders"})

    said = [line for n, name in enumerate(names) for line in (schema(name, n={}), record(name, n=n))]
    outcome = shop.say(*said, state(sales={"at": 1}), stream_maps=maps)

    assert result(outcome["ours"]).rows.loaded == len(names)
    assert shop.position("ours") == {"stream": "sales", "bookmark": {"at": 1}}


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_hashed_column_is_hashed_wherever_its_records_wait(
    tap: MakeTap, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    monkeypatch.setenv("HASH_KEY", "k" * 16)
    shop = tap(orders={"columns": {"v": {"rule": "hash", "key": "env:HASH_KEY"}}})

    result(shop.sync({"tables": {"orders": 2}, "shared": is_shared})["orders"])

    hashed = [hmac.digest(b"k" * 16, f"value {n}".encode(), "sha256").hex() for n in (1, 2)]
    assert shop.rows("orders", "n, v") == [(1, hashed[0]), (2, hashed[1])]


def test_what_is_not_a_bookmark_is_handed_back_after_a_run_that_succeeded(tap: MakeTap) -> None:
    shop = tap(orders={})
    fields = schema("orders", n={"type": "integer"})
    said = state(orders={"at": 1}, parents={"at": 7})
    said["value"] |= {"token": "t", "currently_syncing": "orders"}

    result(shop.say(fields, record("orders", n=1), said)["orders"])
    result(shop.say(fields, record("orders", n=2), said)["orders"])

    assert shop.position("orders") == {"stream": "orders", "bookmark": {"at": 1}}
    assert shop.calls[-1]["given"]["--state"] == {
        "token": "t", "bookmarks": {"parents": {"at": 7}, "orders": {"at": 1}},
    }  # fmt: skip


def test_discovery_tells_streams_columns_and_keys(tap: MakeTap) -> None:
    (found, _) = tap(orders={}, items={}).discover({})

    assert found.name == "orders"
    assert [(column.name, column.type) for column in found.columns] == [("n", "bigint"), ("v", "text")]
    assert found.primary_key == ("n",)


def test_a_preview_shows_the_first_records_and_ends_the_tap(tap: MakeTap, tmp_path: Path) -> None:
    shop = tap(orders={})
    spec = shop.spec({"tables": {"orders": 10_000_000}})
    context = ReadContext(window=None, folder=tmp_path, page_limit=1)

    with kind("singer").open(spec) as connector:
        (page,) = [
            message
            for message in connector.read(spec.streams[0], StreamState(), context)
            if isinstance(message, JsonRecords)
        ]

    assert page.body.count(b"\n") == 99
    eventually_gone(shop.calls[-1]["pid"])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"partitions": {"by": "day", "start": "2024-01-01"}}, "partitions"),
        ({"write": "replace", "replication_method": "incremental"}, "incremental"),
        ({"rename": {"a": "c", "b": "c"}}, "rename"),
        ({"limits": {"memory_mb": 300}}, "read in one process with its siblings"),
    ],
)
def test_settings_that_contradict_a_tap_are_refused_with_the_file(
    tap: MakeTap, settings: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        tap(orders=settings).spec({})


def test_files_of_records_do_not_go_together_with_stream_maps(tap: MakeTap) -> None:
    with pytest.raises(ConfigError, match="batch: true goes round"):
        tap({"batch": True}, orders={}).spec({"stream_maps": {"orders": {}}})
