"""For any records: what was extracted is loaded or quarantined, and what is loaded reads back as it was sent."""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.contract import Frame
from connectors.sync.columns import DELETED, Column
from connectors.sync.decode import Decoder
from connectors.sync.schema import StreamSchema
from tests.support.faults import Lab, Stream, lines
from tests.support.scripted import source

NAMES = ["a", "b", "userId", "user_id", "ctid", "_row", "", 'q"', "x" * 70]
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([2**63, -(2**63), 2**53 + 1, 0, 1]))
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.sampled_from(
        ["", "NULL", "\\.", "\\N", "2024-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "1", "true", "\x00", "\ud800"]
    ),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
record = st.dictionaries(st.sampled_from(NAMES) | texts.filter(lambda name: name != DELETED), values, max_size=6)
pages = st.lists(st.lists(record, min_size=1, max_size=6), min_size=1, max_size=3)


def cleaned(value: Any) -> Any:
    """What the documented cleaning makes of a value, in the form in which PostgreSQL's jsonb shows it."""
    match value:
        case str():
            return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [cleaned(item) for item in value]
        case dict():
            return {cleaned(name): cleaned(item) for name, item in value.items()}
        case bool() | None:
            return value
        case int():
            return Decimal(value)
        case float():
            return value if not math.isfinite(value) else Decimal(repr(value))
        case _:
            return value


def same(column: Column, sent: Any, stored: Any) -> bool:
    """stored: from to_jsonb of the row, numbers as Decimal."""
    sent = cleaned(sent)
    match column.type:
        case "timestamp":
            return stored is not None and datetime.fromisoformat(sent) == datetime.fromisoformat(stored)
        case "double" if isinstance(stored, str):
            return not math.isfinite(sent) and str(float(stored)) == str(float(sent))
        case "double":
            return float(stored) == float(sent)
        case "text" if not isinstance(sent, str):
            return json.loads(stored, parse_int=Decimal, parse_float=Decimal) == sent or math.isnan(sent)
        case _:
            return stored == sent


def check(stream: Stream, sent: Sequence[dict[str, Any]]) -> None:
    """Every record stands in the table or in quarantine, and each stored value is the sent one."""
    result = stream.results[-1]
    held = {position for _, _, position in stream.held()}
    rows = [
        json.loads(text, parse_int=Decimal, parse_float=Decimal)
        for (text,) in stream.fetch(f'select to_jsonb("Row")::text from raw_unit.{stream.name} "Row"')
    ]
    loaded = {int(row["number"]): row for row in rows}
    assert len(loaded) == len(rows)
    assert len(loaded) + len(held) == len(sent) == result.rows.extracted
    if not loaded:
        return
    (registry,) = stream.fetch(
        "select columns from ops.schema_versions where stream = %s order by version desc limit 1", stream.name
    )[0]
    columns = [Column.from_json(item) for item in registry]
    for number, row in loaded.items():
        names: dict[str, Any] = {cleaned(name): value for name, value in sent[number].items()}
        for name, value in names.items():
            of_field = [column for column in columns if column.source_name == name]
            stored = [(column, row[column.name]) for column in of_field if row[column.name] is not None]
            if value is None:
                assert stored == []
            else:
                assert len(stored) == 1, (name, value, row)
                assert same(stored[0][0], value, stored[0][1]), (name, value, stored)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=pages, retyped=st.sampled_from(["quarantine", "evolve"]))
@example(pages=[[{"": None, "\x00": None}]], retyped="quarantine")
@example(pages=[[{"": False}], [{"": []}], [{}]], retyped="evolve")
def test_any_json_records_are_loaded_as_sent_or_quarantined(
    lab: Lab, pages: list[list[dict[str, Any]]], retyped: str
) -> None:
    stream = lab.stream(drift={"retyped": retyped})
    sent = [item for page in pages for item in page]
    numbered = iter(range(len(sent)))
    messages = [
        lines(*(json.dumps({"number": next(numbered), **item}) for item in page), position=f"page {index}")
        for index, page in enumerate(pages)
    ]
    stream.sync(*messages)
    check(stream, sent)


arrow_columns = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float64(), st.floats()),
        (pa.bool_(), st.booleans()),
        (pa.string(), texts.filter(lambda text: cleaned(text) == text.replace("\x00", ""))),
        (pa.large_string(), st.text(max_size=5)),
        (pa.int8(), st.integers(-128, 127)),
        (pa.float32(), st.floats(width=32)),
        (pa.list_(pa.int64()), st.lists(st.integers(-5, 5), max_size=3)),
        (pa.decimal128(20, 4), st.decimals(-(10**12), 10**12, places=4)),
    ]
)


@st.composite
def frames(draw: Any) -> list[pa.Table]:
    """Tables of the same two columns; the type of the second may change from one to the next."""
    found: list[pa.Table] = []
    for _ in range(draw(st.integers(1, 3))):
        kind, items = draw(arrow_columns)
        rows = draw(st.lists(st.none() | items, min_size=1, max_size=5))
        found.append(pa.table({"v": pa.array(rows, kind)}))
    return found


@settings(max_examples=60, deadline=None)
@given(tables=frames(), retyped=st.sampled_from(["quarantine", "evolve"]))
def test_no_row_of_a_frame_is_lost_whatever_its_columns_turn_into(tables: list[pa.Table], retyped: str) -> None:
    spec = source(drift={"retyped": retyped}).streams[0]
    schema = StreamSchema("unit.things", spec, ())
    decoder = Decoder(schema, (), 1 << 20)
    for table in tables:
        decoded = decoder.frame(Frame(table, "frame"))
        kept = [row for part in decoded.tables for row in part.to_pylist()]
        assert len(kept) + len(decoded.rejects) == table.num_rows
        rejected = {int(reject.position.rpartition(" ")[2]) - 1 for reject in decoded.rejects}
        sent = [value for number, value in enumerate(table.column("v").to_pylist()) if number not in rejected]
        for row, value in zip(kept, sent, strict=True):
            stored = [item for name, item in row.items() if name != DELETED and item is not None]
            assert len(stored) == (value is not None)
            if isinstance(value, int | Decimal) and not isinstance(stored[0], bool | str):
                # a decimal in a double has the digits that a double has; an integer has all of them
                assert stored[0] == (float(value) if isinstance(value, Decimal) else value)
            if isinstance(value, bool) and isinstance(stored[0], bool):
                assert stored[0] is value
