"""Bad CSV the whole way, as docs/faults.md has it: one bad record costs itself alone, told with its own place."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Window
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.files.reading import put, source
from tests.support.sql import run as sql

BIGINT: Mapping[str, Any] = {"columns": {"v": {"type": "bigint"}}}
FIELDS = "{} fields where the header has 2"


@pytest.fixture(autouse=True)
def work_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working folders of this test's own: another warehouse's sync of the same name must not share them."""
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path_factory.mktemp("work")))


class Drop:
    """A folder of CSV files, one stream `t` of them, and what a sync of it left."""

    def __init__(self, folder: Path, warehouse: Warehouse) -> None:
        self._folder = folder
        self._dsn = warehouse.loader_dsn
        self._files = 0

    def sync(self, content: bytes | str, window: Window | None = None, **stream: Any) -> SyncResult:
        """Delivers the content as `1.csv`, the next one as `2.csv`, ..."""
        self._files += 1
        put(self._folder, f"{self._files}.csv", content, hour=self._files)
        spec = source({"path": "*.csv", "max_quarantined": {"share": 1}, **stream}, self._folder)
        result = sync(SyncRequest(spec, spec.streams[0], window=window), self._dsn)
        rows = result.rows
        assert rows.extracted == rows.loaded + rows.deduplicated + rows.filtered + rows.quarantined
        return result

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        return sql(self._dsn, f"select {columns} from raw_drop.t order by 1")

    @property
    def held(self) -> list[tuple[str, str]]:
        """(position, reason), in the order of their arrival."""
        return sql(self._dsn, "select position, reason from ops.quarantine order by quarantine_id")

    @property
    def places(self) -> list[str]:
        return sorted(position for position, _ in self.held)


@pytest.fixture
def drop(tmp_path: Path, warehouse: Warehouse) -> Drop:
    return Drop(tmp_path, warehouse)


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ("id,v\n1,1\n2\n3,3\n4,x\n", ["1.csv line 2, record 4", "1.csv line 3"]),
        # each further broken line moves what follows it by one more
        ("id,v\n1\n2,2\n3\n4,x\n5,5,5\n6,6\n7,y\n", [
            "1.csv line 2", "1.csv line 2, record 4", "1.csv line 2, record 7", "1.csv line 4", "1.csv line 6",
        ]),
        # a line without text is one more
        (b"id,v\n1,1\n2,\xff\n3\n4,x\n", ["1.csv line 2, record 4", "1.csv line 3", "1.csv line 4"]),
        # a record with line ends inside quotes is one
        ('id,v\n"1\n1",1\n2\n"3\r\n",3\n4,x\n', ["1.csv line 2, record 4", "1.csv line 3"]),
        ("id,v\n1,1\n2,2\n4,x\n", ["1.csv line 2, record 3"]),
    ],
)  # fmt: skip
def test_a_record_behind_broken_lines_is_told_with_its_own_place(
    drop: Drop, content: bytes | str, places: list[str]
) -> None:
    drop.sync(content, **BIGINT)

    assert drop.places == places


def test_a_record_that_the_contract_refuses_is_told_with_its_own_place(drop: Drop) -> None:
    drop.sync("id,v\n1,1\n2\n3,3\n4,\n", columns={"v": {"type": "bigint", "nullable": False}})

    assert drop.places == ["1.csv line 2, record 4", "1.csv line 3"]


def test_a_record_of_a_partition_is_told_with_its_own_place(drop: Drop) -> None:
    stream: Mapping[str, Any] = {"cursor": {"field": "at"}, "partitions": {"by": "day", "start": "2024-01-01"}}
    window = Window(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    drop.sync("id,v,at\n1,1,2024-01-01\n2\n3,3,2024-01-02\n4,x,2024-01-02\n", window, **stream, **BIGINT)

    assert drop.rows("id, v") == [(3, 3)]
    assert drop.places == ["1.csv line 2, record 4", "1.csv line 3"]


def test_nul_is_stripped_from_a_text_and_counted(drop: Drop) -> None:
    result = drop.sync("id,v\n1,a\x00b\n2,c\n")

    assert drop.rows("id, v") == [(1, "ab"), (2, "c")]
    assert "1 texts lost NUL characters" in result.message


def test_bytes_that_are_not_utf8_cost_their_own_record_alone(drop: Drop) -> None:
    drop.sync(b"id,v\n1,a\n2,\xff\xfe\n3,c\n")

    assert drop.rows("id, v") == [(1, "a"), (3, "c")]
    assert drop.held == [("1.csv line 3", "v is not utf-8 text; set encoding if the whole file is in another")]


def test_names_that_are_one_in_the_warehouse_get_columns_of_their_own(drop: Drop) -> None:
    drop.sync("id,user_id,userId,USER_ID,user_id\n1,2,3,4,5\n")

    assert drop.rows("id, user_id, user_id_2, user_id_3, user_id_2_2") == [(1, 2, 3, 4, 5)]


def test_a_column_with_a_name_of_dlts_is_prefixed(drop: Drop) -> None:
    result = drop.sync("id,_dlt_id,_row\n1,a,b\n")

    assert drop.rows("id, src_dlt_id, src_row") == [(1, "a", "b")]
    assert result.status == "succeeded"


def test_an_integer_beyond_64_bits_is_text_when_first_seen_and_quarantined_later(drop: Drop) -> None:
    drop.sync("id,first,v\n1,9223372036854775808,1\n")
    drop.sync("id,first,v\n2,5,9223372036854775808\n3,6,9223372036854775807\n")

    assert drop.rows("id, first, v") == [(1, "9223372036854775808", 1), (3, "6", 2**63 - 1)]
    assert drop.places == ["2.csv line 2, record 1"]


def test_short_and_long_lines_are_quarantined_with_their_number(drop: Drop) -> None:
    drop.sync("id,v\n1,a\n2\n3,c,d\n4,e\n")

    assert drop.rows("id, v") == [(1, "a"), (4, "e")]
    assert drop.held == [("1.csv line 3", FIELDS.format(1)), ("1.csv line 4", FIELDS.format(3))]


def test_an_append_keeps_both_records_of_one_key(drop: Drop) -> None:
    result = drop.sync("id,v\n1,a\n1,b\n", write="append", primary_key="id")

    assert (sorted(drop.rows("id, v")), result.rows.deduplicated) == ([(1, "a"), (1, "b")], 0)


def test_of_1700_columns_those_without_room_are_keys_of_the_overflow(drop: Drop) -> None:
    names = ["id", *(f"c{number}" for number in range(1, 1_700))]
    result = drop.sync(",".join(names) + "\n" + ",".join(map(str, range(1_700))) + "\n")

    ((row,),) = drop.rows("to_jsonb(t)")
    ours = {"_overflow": row["_overflow"]} if row["_overflow"] else {}
    assert {name: {**row, **ours["_overflow"]}[name] for name in names} == dict(zip(names, range(1_700), strict=True))
    assert 100 < len(ours["_overflow"]) < 1_000
    assert "columns have no room" in result.message
