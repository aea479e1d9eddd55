"""Every kind of drift, by each policy; the schema check stays red until somebody accepts, and never heals itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from connectors.contract import Window
from connectors.errors import ConfigError, ContractError
from connectors.sync import schemabook
from connectors.sync.schema import FrozenDriftError
from tests.support.faults import Lab, Stream, lines

KEYED: dict[str, Any] = {"write": "merge", "primary_key": "id"}


def people(name: str, *rows: tuple[int, str]) -> Any:
    return lines(*[f'{{"id": {number}, "{name}": "{value}"}}' for number, value in rows])


def test_a_renamed_column_is_told_by_its_values(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    rows = [(number, f"person {number} of the town") for number in range(30)]
    stream.sync(people("full_name", *rows))
    stream.sync(people("label", *rows))

    assert stream.drift() == [
        ("new", "label", "added"), ("missing", "full_name", "warn"), ("renamed", "label", "warn"),
    ]  # fmt: skip
    assert stream.decisions() == ["first", "pending"]
    assert "renamed label" in stream.results[-1].message


@pytest.mark.slow
def test_a_renamed_column_is_told_by_its_name_and_some_values(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    stream.sync(people("customer_name", (1, "Ann"), (2, "Bob")))
    stream.sync(people("customername", (3, "Ann"), (4, "Cid")))

    assert ("renamed", "customername", "warn") in stream.drift()


@pytest.mark.slow
def test_another_column_of_other_values_is_no_rename(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    stream.sync(people("colour", (1, "red"), (2, "blue")))
    stream.sync(people("country", (1, "France"), (2, "Chad")))

    assert [change for change, _, _ in stream.drift()] == ["new", "missing"]


@pytest.mark.slow
def test_a_rename_may_stop_the_sync_or_be_ignored(lab: Lab) -> None:
    frozen, ignored = (
        lab.stream(**KEYED, drift={"renamed": policy, "missing": "ignore"}) for policy in ("freeze", "ignore")
    )
    for stream in (frozen, ignored):
        stream.sync(people("customer_name", (1, "Ann")))
    with pytest.raises(ContractError, match="column customer_name: seems to be called customername now"):
        frozen.sync(people("customername", (1, "Ann")))
    ignored.sync(people("customername", (1, "Ann")))

    assert frozen.decisions() == ["first", "blocked"]
    assert ignored.decisions() == ["first", "evolved"]


def test_another_key_stops_the_sync_until_it_is_let_in(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    stream.sync(lines('{"id": 1, "line": 1, "v": 1}', '{"id": 2, "line": 1, "v": 2}'))
    with pytest.raises(ContractError, match=r"primary_key: is id, line, but the raw table was loaded by id"):
        stream.sync(lines('{"id": 1, "line": 2, "v": 3}'), primary_key=["id", "line"])

    stream.options |= {"primary_key": ["id", "line"], "drift": {"key": "evolve"}}
    stream.sync(lines('{"id": 1, "line": 2, "v": 3}', '{"id": 1, "line": 1, "v": 9}', '{"id": 2, "line": 1, "v": 2}'))
    assert sorted(stream.values()) == ["2", "3", "9"]
    assert stream.drift() == [("key", "primary_key", "blocked"), ("key", "primary_key", "declared")]
    assert stream.decisions() == ["first", "blocked", "evolved"]

    with pytest.raises(ContractError, match="rows of the raw table share a value of id"):
        stream.sync(lines('{"id": 1, "line": 2, "v": 3}'), primary_key="id")


@pytest.mark.parametrize(
    ("promise", "column", "record", "after"),
    [
        ("nullability", {"type": "text", "nullable": False}, '{"id": 2, "v": null}', "NULL"),
        ("enum", {"type": "text", "accepted_values": ["open", "shut"]}, '{"id": 2, "v": "ajar"}', "ajar"),
    ],
)
def test_a_broken_promise_follows_its_policy(
    lab: Lab, promise: str, column: dict[str, Any], record: str, after: str
) -> None:
    good, options = '{"id": 1, "v": "open"}', {**KEYED, "columns": {"v": column}}
    held, let_in, frozen = (
        lab.stream(**options, drift={promise: policy}) for policy in ("quarantine", "evolve", "freeze")
    )
    for stream in (held, let_in, frozen):
        stream.sync(lines(good))
    held.sync(lines(good, record))
    let_in.sync(lines(good, record))
    with pytest.raises(ContractError, match=f"drift.{promise}: freeze"):
        frozen.sync(lines(good, record))

    assert (held.results[-1].rows.quarantined, let_in.results[-1].rows.quarantined) == (1, 0)
    assert (held.drift(), held.decisions()) == ([(promise, "v", "quarantined")], ["first", "pending"])
    assert (let_in.drift(), let_in.decisions()) == ([(promise, "v", "loaded")], ["first", "evolved"])
    assert let_in.fetch("select diff -> 0 ->> 'after' from ops.schema_versions where stream = %s and version = 2",
                        let_in.name) == [(after,)]  # fmt: skip
    assert frozen.values() == ["open"]


@pytest.mark.slow
def test_a_value_of_personal_data_is_not_named(lab: Lab) -> None:
    column = {"type": "text", "accepted_values": ["open"], "pii": "personal"}
    stream = lab.stream(**KEYED, columns={"v": column})
    stream.sync(lines('{"id": 1, "v": "open"}'))
    stream.sync(lines('{"id": 2, "v": "ajar"}'))

    assert "ajar" not in str(stream.fetch("select diff from ops.schema_versions where stream = %s", stream.name))


def test_what_the_source_file_says_otherwise_is_a_version_of_its_own(lab: Lab) -> None:
    def declared(**column: Any) -> dict[str, Any]:
        return {"columns": {"v": {"type": "text", **column}}}

    stream = lab.stream(**KEYED)
    stream.sync(lines('{"id": 1, "v": "a"}'), **declared(accepted_values=["a"]))
    stream.sync(lines('{"id": 1, "v": "b"}'), **declared(accepted_values=["a", "b"]))
    stream.sync(lines('{"id": 1, "v": "b"}'), **declared(accepted_values=["a", "b"], nullable=False))

    assert stream.drift() == [("enum", "v", "declared"), ("nullability", "v", "declared")]
    assert stream.decisions() == ["first", "evolved", "evolved"]
    assert stream.results[-1].status == "succeeded"


def test_a_column_that_disappeared_stays_as_null_and_says_so_until_it_is_back(lab: Lab) -> None:
    def comment(stream: Stream) -> str | None:
        ((said,),) = stream.fetch(
            "select col_description(attrelid, attnum) from pg_attribute"
            " where attrelid = %s::regclass and attname = 'v'",
            f"raw_unit.{stream.name}",
        )
        return said

    for write in (KEYED, {"write": "replace"}):
        stream = lab.stream(**write)
        stream.sync(lines('{"id": 1, "v": 1}'))
        stream.sync(lines('{"id": 1}'))
        assert (stream.values(), stream.types()["v"]) == ([None], "bigint")
        assert (comment(stream) or "").startswith("Missing from the source since 20")
        stream.sync(lines('{"id": 1, "v": 2}'))
        assert comment(stream) is None


def drift_is_green(stream: Stream) -> bool:
    return stream.warning("schema_drift") is None


def test_drift_stays_red_until_it_is_accepted_and_never_heals_itself(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    stream.sync(lines('{"id": 1, "v": "a"}'))
    stream.sync(lines('{"id": 2}'))
    assert not drift_is_green(stream)
    stream.sync(lines('{"id": 3, "v": "c"}'))
    assert not drift_is_green(stream)

    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        assert [one.waits for one in schemabook.versions(connection, "unit", stream.name)] == [False, True]
        assert schemabook.accept(connection, "unit", stream.name, None, "agreed with the shop", "ann") == 2
        found = schemabook.versions(connection, "unit", stream.name)[-1]
        assert (found.schema.decision, found.reason, found.actor) == ("accepted", "agreed with the shop", "ann")
        assert found.sync_id == stream.results[1].sync_id
        with pytest.raises(ConfigError, match="no version waits for a decision"):
            schemabook.accept(connection, "unit", stream.name, None, "again", "ann")
    stream.sync(lines('{"id": 4}'))
    assert drift_is_green(stream)
    # what was accepted stays accepted beside a difference that the policy settles
    stream.sync(lines('{"id": 5, "w": 1}'))
    assert drift_is_green(stream)


def accept(stream: Stream) -> None:
    with psycopg.connect(stream.dsn, autocommit=True) as connection:
        schemabook.accept(connection, "unit", stream.name, None, "agreed with the shop", "ann")


def comment(stream: Stream) -> str | None:
    ((said,),) = stream.fetch(
        "select col_description(attrelid, attnum) from pg_attribute where attrelid = %s::regclass and attname = 'v'",
        f"raw_unit.{stream.name}",
    )
    return said


@pytest.mark.parametrize(
    "write", [KEYED, pytest.param({"write": "replace"}, marks=pytest.mark.slow)], ids=["merge", "replace"]
)
def test_a_loss_that_was_accepted_ends_with_the_columns_return_and_the_next_one_wants_a_decision_again(
    lab: Lab, write: dict[str, Any]
) -> None:
    stream = lab.stream(**write)
    stream.sync(lines('{"id": 1, "v": "a"}'))
    stream.sync(lines('{"id": 2}'))
    accept(stream)
    stream.sync(lines('{"id": 3, "v": "c"}'))
    assert (stream.decisions(), drift_is_green(stream)) == (["first", "accepted", "evolved"], True)
    assert stream.drift()[-1] == ("returned", "v", "loaded")
    assert comment(stream) is None

    stream.sync(lines('{"id": 4}'))
    assert stream.results[-1].status == "succeeded_with_warnings"
    assert "schema version 4 is pending: missing v (warn)" in stream.results[-1].message
    assert (comment(stream) or "").startswith("Missing from the source since 20")


def test_records_that_alternate_write_no_version_until_somebody_has_decided(lab: Lab) -> None:
    warned, ignored = lab.stream(**KEYED), lab.stream(**KEYED, drift={"missing": "ignore"})
    for stream in (warned, ignored):
        stream.sync(lines('{"id": 0, "v": "a"}'))
        for number in range(2):
            stream.sync(lines(f'{{"id": {number}}}'))
            stream.sync(lines(f'{{"id": {number}, "v": "a"}}'))
    assert (warned.decisions(), ignored.decisions()) == (["first", "pending"], ["first", "evolved"])

    # accepted while it was back: that is on record, and what comes next is new
    accept(warned)
    warned.sync(lines('{"id": 1, "v": "a"}'))
    for number in range(2):
        warned.sync(lines(f'{{"id": {number}}}'))
        warned.sync(lines(f'{{"id": {number}, "v": "a"}}'))
    assert warned.decisions() == ["first", "accepted", "evolved", "pending"]


def test_few_records_without_a_field_that_most_of_them_lack_anyway_are_no_second_loss(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    few = lines(*[f'{{"id": {number}}}' for number in range(5)])
    rare = lines(
        *[f'{{"id": {number}, "v": {number}}}' if number == 3 else f'{{"id": {number}}}' for number in range(5)]
    )
    stream.sync(rare)
    stream.sync(few)
    accept(stream)
    for _ in range(2):
        stream.sync(rare)
        stream.sync(few)
    assert (stream.decisions(), drift_is_green(stream)) == (["first", "accepted", "evolved"], True)

    # a fifth of them had it: of a hundred none by chance is one case in five billion
    stream.sync(lines(*[f'{{"id": {number}}}' for number in range(100)]))
    assert (stream.decisions()[3:], drift_is_green(stream)) == (["pending"], False)


@pytest.mark.slow
def test_what_was_accepted_of_other_kinds_is_not_asked_again_behind_newer_versions(lab: Lab) -> None:
    stream = lab.stream(**KEYED, columns={"n": {"type": "bigint"}})
    stream.sync(lines('{"id": 1, "v": "a", "n": 1}'))
    stream.sync(lines('{"id": 2, "n": 1}', '{"id": 3, "n": "much"}'))
    accept(stream)
    stream.sync(lines('{"id": 3, "v": "c", "n": 1}'))
    stream.sync(lines('{"id": 3, "v": "c", "n": "much"}'))

    assert (stream.decisions(), drift_is_green(stream)) == (["first", "accepted", "evolved"], True)


@pytest.mark.slow
def test_a_policy_that_stops_at_a_missing_column_does_so_again_after_its_return(lab: Lab) -> None:
    stream = lab.stream(**KEYED, drift={"missing": "freeze"})
    stream.sync(lines('{"id": 1, "v": "a"}'))
    with pytest.raises(FrozenDriftError):
        stream.sync(lines('{"id": 2}'))
    accept(stream)
    stream.sync(lines('{"id": 2}'))
    stream.sync(lines('{"id": 3, "v": "c"}'))
    with pytest.raises(FrozenDriftError, match="no record of this sync has it"):
        stream.sync(lines('{"id": 4}'))

    assert stream.decisions() == ["first", "accepted", "evolved", "evolved", "blocked"]


@pytest.mark.slow
def test_a_partition_of_old_is_no_return(lab: Lab) -> None:
    stream = lab.stream(**KEYED, cursor={"field": "at"}, columns={"at": {"type": "timestamp"}})

    def read(day: int, fields: str = "") -> None:
        start = datetime(2024, 1, day, tzinfo=UTC)
        window = Window(start, start + timedelta(days=1))
        stream.sync(lines(f'{{"id": {day}, "at": "2024-01-0{day}T06:00:00Z"{fields}}}'), partition=window)

    read(2, ', "v": 1')
    read(3)
    accept(stream)
    read(1, ', "v": 1')
    assert stream.decisions() == ["first", "accepted"]
    read(4, ', "v": 1')
    read(5)
    assert stream.decisions() == ["first", "accepted", "evolved", "pending"]


@pytest.mark.parametrize(
    ("column", "value", "decision"),
    [
        ({"type": "bigint"}, '"much"', "pending"),
        pytest.param({"accepted_values": ["1"]}, '"2"', "pending", marks=pytest.mark.slow),
        pytest.param({"nullable": False}, "null", "pending", marks=pytest.mark.slow),
        pytest.param({"pii": "personal"}, '"much"', "first", marks=pytest.mark.slow),
        (None, '"much"', "first"),
    ],
)
def test_a_first_sync_that_contradicts_what_is_declared_wants_a_decision(
    lab: Lab, column: dict[str, Any] | None, value: str, decision: str
) -> None:
    declared = {"v": column} if column else {}
    stream = lab.stream(**KEYED, columns={"id": {"type": "bigint"}, **declared})
    good = '"1"' if column and "accepted_values" in column else "1"
    stream.sync(lines(f'{{"id": 1, "v": {good}}}'), lines(f'{{"id": 2, "v": {value}}}', position="page 2"))

    assert (stream.decisions(), drift_is_green(stream)) == ([decision], decision == "first")
    stream.sync(lines(f'{{"id": 2, "v": {value}}}'))
    if decision == "pending":
        assert (stream.decisions(), drift_is_green(stream)) == (["pending"], False)
        accept(stream)
        stream.sync(lines(f'{{"id": 2, "v": {value}}}'))
    assert drift_is_green(stream)


@pytest.mark.slow
def test_a_first_sync_that_the_policy_lets_contradict_it_wants_none(lab: Lab) -> None:
    column = {"type": "text", "accepted_values": ["open"]}
    stream = lab.stream(**KEYED, columns={"v": column}, drift={"enum": "evolve"})
    stream.sync(lines('{"id": 2, "v": "ajar"}'))

    assert (stream.decisions(), drift_is_green(stream)) == (["first"], True)


def test_of_partitions_the_newest_one_tells_what_is_missing(lab: Lab) -> None:
    stream = lab.stream(**KEYED, cursor={"field": "at"}, columns={"at": {"type": "timestamp"}})

    def read(day: int, fields: str = "") -> None:
        start = datetime(2024, 1, day, tzinfo=UTC)
        window = Window(start, start + timedelta(days=1))
        stream.sync(lines(f'{{"id": {day}, "at": "2024-01-0{day}T06:00:00Z"{fields}}}'), partition=window)

    read(2, ', "v": 1')
    # history may well lack what came later
    read(1)
    assert drift_is_green(stream)
    read(3)
    assert not drift_is_green(stream)
    assert stream.drift() == [("missing", "v", "warn")]


def test_a_blocked_column_is_kept_out_from_the_next_sync_on_until_it_is_lifted(lab: Lab) -> None:
    stream = lab.stream(**KEYED, columns={"v": {"type": "bigint", "nullable": False}})
    stream.sync(lines('{"id": 1, "v": 1}'))
    stream.sync(lines('{"id": 2, "v": "much"}'))
    assert not drift_is_green(stream)
    from tests.support.scripted import source

    spec = source(name=stream.name, **stream.options).streams[0]
    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        with pytest.raises(ConfigError, match="is a key or the cursor"):
            schemabook.block(connection, "unit", spec, "id", "no", "ann")
        with pytest.raises(ConfigError, match="no version of the stream has this column"):
            schemabook.block(connection, "unit", spec, "vv", "a slip of the hand", "ann")
        assert schemabook.block(connection, "unit", spec, "v", "nobody may see it", "ann") == 2
        with pytest.raises(ConfigError, match="is blocked already"):
            schemabook.block(connection, "unit", spec, "v", "again", "ann")
        (rule,) = schemabook.rules(connection, "unit", stream.name)
    assert (rule.column, rule.reason, rule.actor) == ("v", "nobody may see it", "ann")

    stream.sync(lines('{"id": 3, "v": 3}', '{"id": null, "v": 41}'))
    assert stream.values() == ["1", None]
    assert "41" not in stream.payloads()[-1]
    assert drift_is_green(stream)

    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        schemabook.lift(connection, "unit", stream.name, "v", "bob")
        with pytest.raises(ConfigError, match="no operator has blocked it"):
            schemabook.lift(connection, "unit", stream.name, "v", "bob")
    stream.sync(lines('{"id": 4, "v": 4}'))
    assert stream.values() == ["1", None, "4"]


GOOD = '{"id": 1, "v": "1"}'
FROZEN: dict[str, tuple[dict[str, Any], str, tuple[str, str]]] = {
    "new": ({}, '{"id": 2, "v": "open", "w": 1}', ("new", "w")),
    "retyped": ({"type": "bigint"}, '{"id": 2, "v": "open"}', ("retyped", "v")),
    "missing": ({}, '{"id": 2}', ("missing", "v")),
    "nullability": ({"type": "text", "nullable": False}, '{"id": 2, "v": null}', ("nullability", "v")),
    "enum": ({"type": "text", "accepted_values": ["1"]}, '{"id": 2, "v": "2"}', ("enum", "v")),
}


@pytest.mark.parametrize("kind", FROZEN)
def test_what_a_policy_stops_is_on_record_and_red_until_it_is_accepted_and_then_goes_through(
    lab: Lab, kind: str
) -> None:
    column, record, change = FROZEN[kind]
    stream = lab.stream(**KEYED, columns={"id": {}, "v": column}, drift={kind: "freeze"})
    stream.sync(lines(GOOD))
    with pytest.raises(FrozenDriftError, match=f"drift.{kind}: freeze"):
        stream.sync(lines(record))
    with pytest.raises(FrozenDriftError, match=f"drift.{kind}: freeze") as stopped:
        stream.sync(lines(record))
    verdict = next(item for item in stopped.value.verdicts if item.name == "schema_drift")
    assert (verdict.passed, verdict.severity) == (False, "error")
    assert [item["name"] for (found,) in stream.fetch(
        "select verdicts from ops.syncs where stream = %s order by started_at desc limit 1", stream.name
    ) for item in found] == ["schema_drift"]  # fmt: skip
    assert (stream.drift(), stream.decisions()) == ([(*change, "blocked")], ["first", "blocked"])

    stream.sync(lines(GOOD))
    assert stream.warning("schema_drift") is not None

    with psycopg.connect(lab.dsn) as connection:
        schemabook.accept(connection, "unit", stream.name, None, "we know", "Ann")
    stream.sync(lines(record))
    assert stream.results[-1].rows.loaded == 1
    assert stream.warning("schema_drift") is None


def test_another_key_that_was_accepted_is_gone_over_to(lab: Lab) -> None:
    stream = lab.stream(**KEYED)
    stream.sync(lines('{"id": 1, "line": 1, "v": 1}'))
    key = {"primary_key": ["id", "line"]}
    with pytest.raises(ContractError, match="but the raw table was loaded by id"):
        stream.sync(lines('{"id": 1, "line": 2, "v": 3}'), **key)
    with psycopg.connect(lab.dsn) as connection:
        schemabook.accept(connection, "unit", stream.name, None, "we know", "Ann")
    stream.sync(lines('{"id": 1, "line": 2, "v": 3}'), **key)

    assert sorted(stream.values()) == ["1", "3"]
    assert stream.warning("schema_drift") is None
