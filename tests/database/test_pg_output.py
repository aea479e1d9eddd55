"""Bytes of logical replication to messages: what is written comes back, and what is cut short is refused."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.database import pg_output
from connectors.database.pg_output import UNCHANGED, MalformedError, Row, parse
from connectors.database.pg_wal import lsn, lsn_text

NUMBERS = st.integers(0, 2**32 - 1)
PLACES = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
ROWS = st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=50)), max_size=6)
COLUMNS = st.builds(pg_output.RelationColumn, NAMES, NUMBERS, st.integers(-1, 2**31 - 1), st.booleans())
MESSAGES = st.one_of(
    st.builds(pg_output.Begin, PLACES),
    st.builds(pg_output.Commit, PLACES),
    st.builds(pg_output.Relation, NUMBERS, NAMES, NAMES, st.lists(COLUMNS, max_size=5).map(tuple)),
    st.builds(pg_output.Insert, NUMBERS, ROWS),
    st.builds(pg_output.Update, NUMBERS, ROWS, st.booleans(), ROWS),
    st.builds(pg_output.Update, NUMBERS, st.none(), st.just(False), ROWS),
    st.builds(pg_output.Delete, NUMBERS, ROWS, st.booleans()),
    st.builds(pg_output.Truncate, st.lists(NUMBERS, max_size=4).map(tuple)),
)


def _row(row: Row) -> bytes:
    body = pack(">h", len(row))
    for value in row:
        if isinstance(value, bytes):
            body += b"t" + pack(">I", len(value)) + value
        else:
            body += b"n" if value is None else b"u"
    return body


def _written(message: pg_output.Message) -> bytes:
    """As PostgreSQL's manual describes it."""
    match message:
        case pg_output.Begin():
            return b"B" + pack(">QqI", message.final_lsn, 1, 2)
        case pg_output.Commit():
            return b"C" + pack(">BQQq", 0, 1, message.end_lsn, 3)
        case pg_output.Relation():
            body = b"R" + pack(">I", message.relation_id)
            body += message.schema.encode() + b"\0" + message.table.encode() + b"\0d" + pack(">h", len(message.columns))
            for column in message.columns:
                body += pack(">B", column.is_key) + column.name.encode() + b"\0"
                body += pack(">Ii", column.type_id, column.modifier)
            return body
        case pg_output.Insert():
            return b"I" + pack(">I", message.relation_id) + b"N" + _row(message.row)
        case pg_output.Update():
            old = b"" if message.old is None else (b"K" if message.is_key_only else b"O") + _row(message.old)
            return b"U" + pack(">I", message.relation_id) + old + b"N" + _row(message.row)
        case pg_output.Delete():
            kind = b"K" if message.is_key_only else b"O"
            return b"D" + pack(">I", message.relation_id) + kind + _row(message.old)
        case pg_output.Truncate():
            ids = message.relation_ids
            return b"T" + pack(f">IB{len(ids)}I", len(ids), 0, *ids)
        case pg_output.Ignored():
            raise AssertionError(message)


@given(MESSAGES)
def test_every_message_comes_back_as_it_was_written(message: pg_output.Message) -> None:
    assert parse(_written(message)) == message


@given(MESSAGES, st.integers(1, 40), st.binary(max_size=3))
def test_a_message_that_is_cut_or_too_long_is_refused(message: pg_output.Message, cut: int, more: bytes) -> None:
    body = _written(message)

    with pytest.raises(MalformedError):
        parse(body[: max(0, len(body) - cut)])
    if more:
        with pytest.raises(MalformedError, match="bytes too many"):
            parse(body + more)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    try:
        parse(body)
    except MalformedError:
        return


@given(PLACES)
def test_a_place_in_the_log_is_written_as_postgresql_writes_it(place: int) -> None:
    assert lsn(lsn_text(place)) == place
    assert lsn_text(0x16_B374D848) == "16/B374D848"
