"""Another key, or none: the unique index of the one before goes, or the sync says why it stops."""

from typing import Any

import psycopg
import pytest

from connectors.errors import ContractError
from connectors.sync import schemabook
from tests.support.faults import Lab, Stream, lines

KEYED: dict[str, Any] = {"write": "merge", "primary_key": "id"}
EVOLVES: dict[str, Any] = {"drift": {"key": "evolve"}}
TWICE = lines('{"id": 1, "line": 1, "v": 1}', '{"id": 1, "line": 2, "v": 2}')


def keyed(lab: Lab, **options: Any) -> Stream:
    stream = lab.stream(**KEYED)
    stream.sync(lines('{"id": 1, "line": 1, "v": 0}'))
    stream.options = options
    return stream


def unique_indexes(stream: Stream) -> list[str]:
    found = stream.fetch(
        "select relname from pg_index join pg_class on oid = indexrelid where indrelid = %s::regclass and indisunique"
        " order by relname",
        f"raw_unit.{stream.name}",
    )
    return [name for (name,) in found]


def test_a_table_that_is_appended_to_without_its_key_stops_until_it_is_let_in(lab: Lab) -> None:
    stream = keyed(lab, write="append")
    with pytest.raises(ContractError, match="primary_key: is nothing named, but the raw table was loaded by id"):
        stream.sync(TWICE)
    assert stream.decisions() == ["first", "blocked"]

    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        schemabook.accept(connection, "unit", stream.name, None, "we know", "ann")
    stream.sync(TWICE)
    assert (stream.values(order="v"), unique_indexes(stream)) == (["0", "1", "2"], [])
    stream.sync(TWICE)
    assert stream.results[-1].rows.loaded == 2

    # the next change of the key wants a decision of its own
    stream.execute(f"delete from raw_unit.{stream.name} where v > 0")
    stream.sync(lines('{"id": 1, "line": 1, "v": 0}'), **KEYED)
    with pytest.raises(ContractError, match="but the raw table was loaded by id"):
        stream.sync(TWICE)


@pytest.mark.parametrize(
    "options",
    [
        {"write": "append", **EVOLVES},
        pytest.param({"write": "append", "cursor": {"field": "v"}, **EVOLVES}, marks=pytest.mark.slow),
        pytest.param({"write": "append", "primary_key": "id"}, marks=pytest.mark.slow),
        {"write": "replace"},
    ],
    ids=["append", "append by cursor", "append with the key", "replace"],
)
def test_the_unique_index_goes_with_the_disposition_that_needed_it(lab: Lab, options: dict[str, Any]) -> None:
    stream = keyed(lab, **options)
    stream.sync(TWICE)
    assert (stream.results[-1].rows.loaded, stream.results[-1].rows.quarantined) == (2, 0)
    assert unique_indexes(stream) == []


@pytest.mark.slow
def test_a_key_that_goes_and_comes_has_one_index_at_a_time(lab: Lab) -> None:
    stream = keyed(lab, write="replace", primary_key=["id", "line"])
    stream.sync(TWICE)
    stream.sync(TWICE, write="merge")
    assert unique_indexes(stream) == [f"{stream.name}_by_key"]
    assert stream.values(order="line") == ["1", "2"]


def test_an_index_that_somebody_else_made_stays(lab: Lab) -> None:
    stream = keyed(lab, write="append", **EVOLVES)
    stream.execute(f"create unique index theirs on raw_unit.{stream.name} (v)")
    stream.sync(TWICE)
    assert unique_indexes(stream) == ["theirs"]
    stream.sync(lines('{"id": 5, "line": 1, "v": 5}'), write="replace")
    assert len(unique_indexes(stream)) == 1


@pytest.mark.slow
def test_versions_of_a_key_need_another_index_than_its_rows(lab: Lab) -> None:
    stream = keyed(lab, write="scd2", primary_key="id")
    stream.sync(lines('{"id": 1, "line": 1, "v": 7}'))
    assert sorted(stream.values()) == ["0", "7"]
    with pytest.raises(ContractError, match="rows of the raw table share a value of id"):
        stream.sync(lines('{"id": 1, "line": 1, "v": 8}'), write="merge")


@pytest.mark.slow
def test_rows_that_were_appended_take_a_key_when_its_values_are_unique(lab: Lab) -> None:
    for options in ({}, {"primary_key": "id"}):
        stream = lab.stream(write="append", **options)
        stream.sync(lines('{"id": 1, "v": 0}', '{"id": 2, "v": 0}'))
        stream.sync(lines('{"id": 2, "v": 5}'), **KEYED)
        assert stream.values() == ["0", "5"]

        stream = lab.stream(write="append", **options)
        stream.sync(TWICE)
        with pytest.raises(ContractError, match="rows of the raw table share a value of id"):
            stream.sync(lines('{"id": 2, "v": 5}'), **KEYED)
