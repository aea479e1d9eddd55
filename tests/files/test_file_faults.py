"""Files that change under the reader, that disagree, or that are not what they seem: each with its outcome."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from connectors.contract import Attestation, Checkpoint, Message, ReadContext, StreamState
from connectors.errors import ContractError, ResourceError, SourceError, TransientError
from connectors.registry import kind
from platform_assets.warehouse import Warehouse
from tests.files.reading import put, read, source
from tests.files.test_files_through_engine import rows, run

CSV = {"path": "*.csv"}
MERGE = {"write": "merge", "primary_key": "id"}


class Halted:
    """A read that stands still after its first message, as a large one does while the engine works."""

    def __init__(self, folder: Path, work: Path) -> None:
        spec = source(CSV, folder)
        self._messages = kind("files").open(spec).read(spec.streams[0], StreamState(), ReadContext(None, work))
        self.seen: list[Message] = [next(self._messages)]

    def go_on(self) -> list[Message]:
        for message in self._messages:
            self.seen.append(message)
        return self.seen

    @property
    def checkpoints(self) -> int:
        return sum(isinstance(message, Checkpoint) for message in self.seen)


def lines(count: int) -> str:
    return "id,note\n" + "".join(f"{number},{'x' * 200}\n" for number in range(count))


def test_a_file_that_is_deleted_before_its_turn_is_transient_and_those_before_it_stay(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    gone = put(tmp_path, "b.csv", "id\n2\n", hour=2)
    read_ = Halted(tmp_path, tmp_path)
    gone.unlink()

    with pytest.raises(TransientError, match=r"b\.csv is gone since it was listed"):
        read_.go_on()

    assert read_.checkpoints == 1


def test_a_file_that_is_deleted_while_it_is_read_was_read_whole(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", lines(100_000))
    read_ = Halted(tmp_path, tmp_path)
    path.unlink()

    assert isinstance(read_.go_on()[-1], Checkpoint)


@pytest.mark.parametrize("how", ["appended to", "written anew", "replaced"])
def test_a_file_that_is_written_to_while_it_is_read_is_not_sealed(tmp_path: Path, how: str) -> None:
    path = put(tmp_path, "a.csv", lines(100_000))
    read_ = Halted(tmp_path, tmp_path)
    if how == "appended to":
        with path.open("a") as file:
            file.write("7,late\n")
    elif how == "written anew":
        # as long as before: only its time tells
        path.write_text(lines(100_000).replace("x", "y"))
    else:
        put(tmp_path, "new", lines(10), hour=3).rename(path)

    with pytest.raises(TransientError, match=r"a\.csv was written to while it was read"):
        read_.go_on()

    assert read_.checkpoints == 0


EMPTY: Mapping[str, type[Exception] | None] = {
    "a.csv": None, "a.jsonl": None, "a.parquet": SourceError, "a.xlsx": SourceError, "a.csv.gz": SourceError,
    "a.csv.bz2": SourceError, "a.csv.xz": SourceError, "a.csv.zst": SourceError,
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_a_file_of_no_bytes_is_sealed_where_that_can_be_one(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, b"")

    found = read(tmp_path, {"path": name})

    assert found.rows == []
    expected = EMPTY[name]
    assert found.error is None if expected is None else isinstance(found.error, expected)
    assert len(found.of(Checkpoint)) == (expected is None)


def test_a_byte_order_mark_before_a_quoted_header_is_no_part_of_its_name(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", '\ufeff"id","no,te"\n1,"ä"\n'.encode())

    assert read(tmp_path, CSV).rows == [{"id": 1, "no,te": "ä"}]


@pytest.mark.parametrize("suffix", ["", "\r"], ids=["straight", "careful"])
def test_columns_go_by_the_header_of_their_own_file(tmp_path: Path, warehouse: Warehouse, suffix: str) -> None:
    def csv(header: str, *records: str) -> str:
        return "".join(f"{line}{suffix}\n" for line in (header, *records))

    put(tmp_path, "a.csv", csv("id,note,n", "1,a,10", "2,b,20"), hour=1)
    put(tmp_path, "b.csv", csv("n,id,note", "30,3,c"), hour=2)
    put(tmp_path, "c.csv", csv("id,extra,n", "4,new,40"), hour=3)
    put(tmp_path, "d.csv", csv("id", "5"), hour=4)

    result = run(tmp_path, warehouse, {"name": "t", **CSV, **MERGE})

    assert result.rows.loaded == 5
    assert rows(warehouse, "select id, note, n, extra from raw_drop.t order by id") == [
        (1, "a", 10, None), (2, "b", 20, None), (3, "c", 30, None), (4, None, 40, "new"), (5, None, None, None),
    ]  # fmt: skip


def test_names_with_the_signs_of_patterns_are_read(tmp_path: Path) -> None:
    names = ["a[1].csv", "b*.csv", "c?.csv", "d {x}.csv", "e#%20.csv"]
    for hour, name in enumerate(names):
        put(tmp_path, name, f"id\n{hour}\n", hour=hour)

    assert [row["id"] for row in read(tmp_path, CSV).rows] == [0, 1, 2, 3, 4]
    assert [row["id"] for row in read(tmp_path, {"path": "a[[]1].csv"}).rows] == [0]
    assert [row["id"] for row in read(tmp_path, {"path": "b[*].csv"}).rows] == [1]
    assert [row["id"] for row in read(tmp_path, {"path": "e#%20.csv"}).rows] == [4]


def test_a_name_in_brackets_that_matches_nothing_says_how_to_write_it(tmp_path: Path) -> None:
    put(tmp_path, "a[1].csv", "id\n1\n")

    assert "a[[]1].csv" in str(read(tmp_path, {"path": "a[1].csv"}).error)


def workbook(*records: Sequence[Any]) -> bytes:
    book: Any = Workbook()
    for record in records:
        book.active.append(record)
    book.save(body := io.BytesIO())
    return body.getvalue()


def parquet(records: Sequence[Sequence[str]]) -> bytes:
    header, *others = records
    table = pa.table({name: list(column) for name, column in zip(header, zip(*others, strict=True), strict=True)})
    pq.write_table(table, body := io.BytesIO())
    return body.getvalue()


RECORDS = (("id", "price", "code", "at"), ("1", "10.10", "007", "2024-02-29"), ("2", "NA", "NA", "NA"))
FORMATS = {
    "a.csv": "\n".join(map(",".join, RECORDS)).encode(),
    "a.jsonl": b'{"id": "1", "price": "10.10", "code": "007", "at": "2024-02-29"}\n'
    b'{"id": "2", "price": "NA", "code": "NA", "at": "NA"}\n',
    "a.parquet": parquet(RECORDS),
    "a.xlsx": workbook(*RECORDS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_contract_decides_types_and_what_is_null_in_every_format(
    tmp_path: Path, warehouse: Warehouse, name: str
) -> None:
    put(tmp_path, name, FORMATS[name])
    columns = {
        "id": {"type": "bigint"},
        "price": {"type": "decimal", "precision": 6, "scale": 2},
        "code": {"type": "text"},
        "at": {"type": "timestamp"},
    }

    result = run(tmp_path, warehouse, {"name": "t", "path": name, "null_values": ["NA"], "columns": columns, **MERGE})

    assert (result.rows.loaded, result.rows.quarantined) == (2, 0)
    types = {column.name: column.type for column in result.columns}
    assert [types[column] for column in columns] == ["bigint", "numeric(6,2)", "text", "timestamp with time zone"]
    assert rows(warehouse, "select id, price, code, at from raw_drop.t order by id") == [
        (1, Decimal("10.10"), "007", datetime(2024, 2, 29, tzinfo=UTC)), (2, None, None, None),
    ]  # fmt: skip


def test_rows_of_a_file_that_is_gone_are_marked_where_the_folder_is_the_whole(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    stream = {"name": "t", **CSV, **MERGE, "snapshot": True}
    put(tmp_path, "a.csv", "id\n1\n2\n", hour=1)
    gone = put(tmp_path, "b.csv", "id\n3\n", hour=2)
    run(tmp_path, warehouse, stream)
    gone.unlink()

    run(tmp_path, warehouse, stream)

    assert rows(warehouse, "select id, _deleted from raw_drop.t order by id") == [(1, False), (2, False), (3, True)]
    # a folder that is not mounted looks like this
    (tmp_path / "a.csv").unlink()
    with pytest.raises(ContractError, match="the source sent no rows"):
        run(tmp_path, warehouse, stream)


def test_a_sheet_keeps_every_cell_or_says_which_row_it_leaves_out(tmp_path: Path) -> None:
    put(tmp_path, "a.xlsx", workbook(["id", "n", "n"], [1, 1.5, "NA"], [2, "NA", "x"], [3, 2, "y", None, "lost"]))

    found = read(tmp_path, {"path": "*.xlsx", "null_values": ["NA"]})

    assert found.rows == [{"id": 1, "n": 1.5, "n_2": None}, {"id": 2, "n": None, "n_2": "x"}]
    assert found.rejected == [("a.xlsx row 4", b"3,2,y,,lost", "5 cells where the header has 3")]


def test_a_workbook_that_is_a_bomb_is_not_opened(tmp_path: Path) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"<worksheet/>")
        packed.getinfo("xl/worksheets/sheet1.xml").file_size = 300 << 20
    put(tmp_path, "a.xlsx", body.getvalue())

    found = read(tmp_path, {"path": "*.xlsx"})

    assert isinstance(found.error, ResourceError)
    assert "unpacks to more than 314,572,800" in found.error.what


def test_a_file_with_nothing_but_its_header_is_read_once(tmp_path: Path, warehouse: Warehouse) -> None:
    stream = {"name": "t", **CSV, "columns": {"id": {"type": "bigint"}}}
    put(tmp_path, "a.csv", "id,note\n")

    first = run(tmp_path, warehouse, stream)

    assert first.status == "succeeded_empty"
    # the table is there for whoever builds on it
    assert rows(warehouse, "select count(id) from raw_drop.t") == [(0,)]
    assert read(tmp_path, CSV, StreamState(connector=first.state_after["connector"])).messages == [
        Attestation(rows=0, nothing_new=True)
    ]
