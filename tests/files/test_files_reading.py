"""Which files are read, what is sealed, and what every fault of a file does."""

import bz2
import gzip
import json
import lzma
import os
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.contract import Attestation, Checkpoint, JsonRecords, ReadContext, StreamState, Window
from connectors.errors import MAX_LINES, Cancelled, ConfigError, ResourceError, SourceError, TransientError
from connectors.files.columnar import read_parquet
from connectors.registry import kind
from tests.files.reading import put, read, source

ROOT = Path(__file__).parents[2]
CSV = {"path": "*.csv"}
MERGE = {"write": "merge", "primary_key": "id"}


def test_only_new_files_are_read_and_each_is_sealed(tmp_path: Path) -> None:
    put(tmp_path, "b.csv", "id\n2\n", hour=2)
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    put(tmp_path, "other.txt", "id\n9\n")
    put(tmp_path, ".hidden.csv", "id\n9\n")
    first = read(tmp_path, CSV)
    put(tmp_path, "c.csv", "id\n3\n", hour=3)

    second = read(tmp_path, CSV, first.state)
    third = read(tmp_path, CSV, second.state)

    assert [row["id"] for row in first.rows] == [1, 2]
    assert len(first.of(Checkpoint)) == 2
    assert [row["id"] for row in second.rows] == [3]
    assert third.messages == [Attestation(rows=0, nothing_new=True)]


def test_a_changed_file_is_read_again_under_merge(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    first = read(tmp_path, {**CSV, **MERGE})
    put(tmp_path, "a.csv", "id\n1\n2\n", hour=1)

    assert [row["id"] for row in read(tmp_path, {**CSV, **MERGE}, first.state).rows] == [1, 2]
    assert not read(tmp_path, {**CSV, **MERGE, "on_change": "ignore"}, first.state).rows


def test_a_changed_file_fails_an_append(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    first = read(tmp_path, CSV)
    put(tmp_path, "a.csv", "id\n1\n2\n", hour=2)

    error = read(tmp_path, CSV, first.state).error

    assert isinstance(error, SourceError)
    assert "1 files changed after they were loaded, first a.csv" in error.what


@pytest.mark.parametrize("stream", [{"write": "replace"}, {**MERGE, "snapshot": True}])
def test_a_whole_collection_is_read_every_time_and_sealed_at_its_end(tmp_path: Path, stream: dict[str, Any]) -> None:
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    put(tmp_path, "b.csv", "id\n2\n", hour=2)

    first = read(tmp_path, {**CSV, **stream})
    second = read(tmp_path, {**CSV, **stream}, first.state)

    for found in (first, second):
        assert [row["id"] for row in found.rows] == [1, 2]
        assert [isinstance(message, Checkpoint) for message in found.messages] == [False, False, True]


def test_a_failed_read_goes_on_at_the_broken_file(tmp_path: Path) -> None:
    put(tmp_path, "a.csv.gz", gzip.compress(b"id\n1\n"), hour=1)
    whole = gzip.compress(os.urandom(300_000).hex().encode())
    put(tmp_path, "b.csv.gz", whole[: len(whole) // 2], hour=2)
    put(tmp_path, "c.csv.gz", gzip.compress(b"id\n3\n"), hour=3)
    stream = {"path": "*.csv.gz", "max_record_bytes": 1 << 20}

    broken = read(tmp_path, stream)
    put(tmp_path, "b.csv.gz", gzip.compress(b"id\n2\n"), hour=2)
    mended = read(tmp_path, stream, broken.state)

    assert isinstance(broken.error, SourceError)
    assert "b.csv.gz is broken or cut off" in broken.error.what
    assert broken.sealed_rows == [{"id": 1}]
    assert [row["id"] for row in mended.rows] == [2, 3]


def zstd(raw: bytes) -> bytes:
    return pa.compress(raw, codec="zstd", asbytes=True)


def two_members(raw: bytes) -> bytes:
    return gzip.compress(raw[:7]) + gzip.compress(raw[7:])


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.csv", bytes),
        ("a.csv.gz", gzip.compress),
        ("a.csv.bz2", bz2.compress),
        ("a.csv.xz", lzma.compress),
        ("a.csv.zst", zstd),
        ("a.csv.gz", two_members),
    ],
)
def test_compressed_files_are_unpacked_and_cut_ones_found(tmp_path: Path, name: str, pack: Any) -> None:
    rows = [{"id": number, "note": f"note {number * 7919 % 1000}"} for number in range(2000)]
    packed = pack(("id,note\n" + "".join(f"{row['id']},{row['note']}\n" for row in rows)).encode())
    put(tmp_path / "whole", name, packed)
    put(tmp_path / "cut", name, packed[:-5])

    whole = read(tmp_path / "whole", {"path": name})
    cut = read(tmp_path / "cut", {"path": name})

    assert whole.rows == rows
    assert whole.context
    assert whole.context.usage.received_bytes == len(packed)
    if name != "a.csv":
        assert isinstance(cut.error, SourceError)
        assert not cut.of(Checkpoint)


def test_a_file_that_is_not_what_its_name_says_is_source(tmp_path: Path) -> None:
    put(tmp_path, "a.csv.gz", b"id\n1\n")
    put(tmp_path, "a.parquet", b"PAR1 and nothing else")

    for path in ("a.csv.gz", "a.parquet"):
        assert isinstance(read(tmp_path, {"path": path}).error, SourceError)


def test_a_bomb_ends_only_in_resource(tmp_path: Path) -> None:
    line = b"1," + b"0" * 998 + b"\n"
    packed = gzip.compress(b"id,note\n" + line * 300_000, compresslevel=9)
    put(tmp_path, "a.csv.gz", packed)

    found = read(tmp_path, {"path": "a.csv.gz"})

    assert isinstance(found.error, ResourceError)
    assert f"a.csv.gz of {len(packed):,} bytes unpacks to more than" in found.error.what
    assert not found.of(Checkpoint)


@pytest.mark.parametrize("path", ["*.csv", "nope.csv"])
def test_nothing_to_read_is_config_at_first(tmp_path: Path, path: str) -> None:
    error = read(tmp_path, {"path": path}).error

    assert isinstance(error, ConfigError)
    assert path in error.what
    assert len(str(error).splitlines()) <= MAX_LINES


def test_a_missing_folder_is_config(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path / "nope", CSV).error, ConfigError)


def test_an_emptied_folder_has_nothing_new(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "id\n1\n")
    first = read(tmp_path, CSV)
    path.unlink()

    assert read(tmp_path, CSV, first.state).messages == [Attestation(rows=0, nothing_new=True)]


def test_brackets_in_the_folder_are_no_pattern(tmp_path: Path) -> None:
    put(tmp_path / "drop [1]", "a.csv", "id\n1\n")

    assert read(tmp_path / "drop [1]", CSV).rows == [{"id": 1}]


def test_folders_below_are_found_by_two_stars(tmp_path: Path) -> None:
    put(tmp_path, "2024/01/a.csv", "id\n1\n", hour=1)
    put(tmp_path, "2024/02/b.csv", "id\n2\n", hour=2)

    found = read(tmp_path, {"path": "**/*.csv"})

    assert [row["id"] for row in found.rows] == [1, 2]
    assert [frame.position for frame in found.messages[::2]] == ["2024/01/a.csv line 2", "2024/02/b.csv line 2"]  # pyright: ignore[reportAttributeAccessIssue] frames


def test_a_file_still_being_written_waits(tmp_path: Path) -> None:
    put(tmp_path, "old.csv", "id\n1\n")
    fresh = put(tmp_path, "fresh.csv", "id\n2\n")
    now = time.time_ns()
    os.utime(fresh, ns=(now, now))

    assert [row["id"] for row in read(tmp_path, {**CSV, "settle": "PT1H"}).rows] == [1]


def test_a_cancelled_read_stops_inside_a_file(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,note\n" + "".join(f"{number},{'x' * 200}\n" for number in range(200_000)))
    spec = source(CSV, tmp_path)

    with kind("files").open(spec) as connector:
        context = ReadContext(window=None, folder=tmp_path)
        messages = connector.read(spec.streams[0], StreamState(), context)
        next(messages)
        context.cancelled.set()
        with pytest.raises(Cancelled):
            list(messages)


def test_a_preview_reads_so_many_batches(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id\n1\n", hour=1)
    put(tmp_path, "b.csv", "id\n2\n", hour=2)

    assert [row["id"] for row in read(tmp_path, CSV, page_limit=1).rows] == [1]


def test_a_partition_is_cut_by_the_cursor(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,at\n" + "".join(f"{day},2024-01-{day:02}T00:00:00Z\n" for day in range(1, 10)))
    put(tmp_path, "b.csv", "id,at\n20,2024-02-01T00:00:00Z\n")
    stream = {**CSV, **MERGE, "cursor": {"field": "at"}, "partitions": {"by": "day", "start": "2024-01-01"}}
    window = Window(datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC))

    found = read(tmp_path, stream, window=window)

    assert [row["id"] for row in found.rows] == [3, 4]
    assert not found.of(Checkpoint)


def test_json_lines_stay_raw_bytes(tmp_path: Path) -> None:
    first = b'{"id": 1, "n": 1.10, "t": "\\u00e4"}'
    put(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + first + b'\r\n\n{"id": 2}')

    found = read(tmp_path, {"path": "a.jsonl"})

    pieces = found.of(JsonRecords)
    assert pieces[0].body.startswith(first)
    assert [piece.position for piece in pieces] == ["a.jsonl line 1", "a.jsonl line 3"]
    assert [json.loads(line) for piece in pieces for line in piece.body.splitlines() if line.strip()] == [
        {"id": 1, "n": 1.10, "t": "ä"},
        {"id": 2},
    ]


def test_long_json_lines_are_cut_into_pieces_at_line_ends(tmp_path: Path) -> None:
    lines = [json.dumps({"id": number, "note": "x" * 500}) for number in range(30_000)]
    put(tmp_path, "a.jsonl.gz", gzip.compress("\n".join(lines).encode()))

    pieces = read(tmp_path, {"path": "a.jsonl.gz"}).of(JsonRecords)

    assert len(pieces) > 3
    assert [line for piece in pieces for line in piece.body.decode().splitlines()] == lines
    for piece in pieces:
        number = int(piece.position.rpartition(" ")[2])
        assert piece.body.decode().splitlines()[0] == lines[number - 1]


@pytest.mark.parametrize("size", [100_000, 9_000_000])
def test_a_json_line_over_the_limit_is_rejected_alone(tmp_path: Path, size: int) -> None:
    long = b'{"id": 2, "note": "' + b"x" * size + b'"}'
    put(tmp_path, "a.jsonl", b'{"id": 1}\n' + long + b'\n{"id": 3}\n')

    found = read(tmp_path, {"path": "a.jsonl", "max_record_bytes": 50_000})

    ids = [json.loads(line)["id"] for piece in found.of(JsonRecords) for line in piece.body.split(b"\n") if line]
    assert ids == [1, 3]
    ((position, payload, reason),) = found.rejected
    assert position == "a.jsonl line 2"
    assert payload == long[: len(payload)]
    assert f"a record of {len(long):,} bytes" in reason
    assert [piece.position for piece in found.of(JsonRecords)] == ["a.jsonl line 1", "a.jsonl line 3"]


@pytest.mark.parametrize(("content", "says"), [(b'[{"id": 1}]', "one JSON array"), (b"\xff\xfe{", "UTF-16")])
def test_what_is_no_json_lines_is_source(tmp_path: Path, content: bytes, says: str) -> None:
    put(tmp_path, "a.json", content)

    error = read(tmp_path, {"path": "a.json"}).error

    assert isinstance(error, SourceError)
    assert says in error.what


def test_parquet_keeps_its_types_and_comes_in_batches(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(range(120_000), pa.int32()),
            "kind": pa.array(["a", "b"] * 60_000).dictionary_encode(),
            "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 120_000, pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    found = read(tmp_path, {"path": "*.parquet"})

    assert len(found.messages) == 4
    assert found.table.schema.field("kind").type == pa.string()
    assert found.table.schema.field("id").type == pa.int32()
    assert found.table["id"].to_pylist() == list(range(120_000))


def test_of_a_parquet_file_only_some_row_groups_are_in_memory(tmp_path: Path) -> None:
    """In one read over all of them Arrow would hold the whole file until its end."""
    noise = pa.array([os.urandom(1 << 20) for _ in range(64)])
    pq.write_table(pa.table({"noise": noise}), tmp_path / "a.parquet", row_group_size=1)
    del noise
    rows = 0
    with (tmp_path / "a.parquet").open("rb") as file:
        tracemalloc.start()
        try:
            for frame in read_parquet(file, "unit.things", "a.parquet"):
                rows += frame.table.num_rows
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert rows == 64
    assert peak_bytes < 40 << 20


def test_a_name_that_says_nothing_needs_a_format(tmp_path: Path) -> None:
    put(tmp_path, "a.dat", "id\n1\n")

    assert "Set format" in str(read(tmp_path, {"path": "a.dat"}).error)
    assert read(tmp_path, {"path": "a.dat", "format": "csv"}).rows == [{"id": 1}]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_auth(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id\n1\n").chmod(0)

    error = read(tmp_path, CSV).error

    assert error
    assert error.failure_class == "auth"


@pytest.fixture
def bucket() -> Iterator[str]:
    """A store that is no local folder."""
    store = fsspec.filesystem("memory")
    store.pipe("/drop/2024/a.csv", b"id\n1\n")
    store.pipe("/drop/2024/b.csv", b"id\n2\n")
    yield "memory://drop"
    store.rm("/drop", recursive=True)


def test_a_remote_store_is_read_like_a_folder(bucket: str) -> None:
    first = read(bucket, {"path": "**/*.csv"})
    fsspec.filesystem("memory").pipe("/drop/2024/c.csv", b"id\n3\n")

    second = read(bucket, {"path": "**/*.csv"}, first.state)

    assert sorted(row["id"] for row in first.rows) == [1, 2]
    assert [row["id"] for row in second.rows] == [3]


def test_check_counts_and_discover_groups(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        put(tmp_path, f"weather_2013-01-{day:02}.csv.gz", gzip.compress(b"id\n1\n"), hour=day)
    put(tmp_path, "events.jsonl", b"{}")
    put(tmp_path, "readme.md", b"hello")

    with kind("files").open(source(CSV, tmp_path)) as connector:
        told = connector.check()
        streams = [found.name for found in connector.discover()]

    assert told == f"5 files at {tmp_path}, newest weather_2013-01-03.csv.gz"
    assert streams == ["events.jsonl", "weather_*.csv.gz"]


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ({"path": "/etc/*.csv"}, "below connector.url"),
        ({"path": "../a.csv"}, "below connector.url"),
        ({"path": "s3://other/a.csv"}, "below connector.url"),
        ({"path": "a.csv", "header": False}, "header: false needs names"),
        ({"path": "a.csv", "encoding": "utf-9"}, "no encoding 'utf-9'"),
        ({"path": "a.csv", "on_change": "read"}, "use write: merge"),
        ({"path": "a.csv", "names": ["a", "a"]}, "names has a column twice"),
        ({"path": "a.csv", "delimeter": ";"}, "Did you mean 'delimiter'?"),
    ],
)
def test_a_wrong_stream_says_what_is_wrong(tmp_path: Path, stream: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        source(stream, tmp_path)

    assert says in str(raised.value)


def test_a_store_without_its_library_names_it() -> None:
    program = """
import sys
sys.modules["s3fs"] = None  # as where it is not installed
from connectors.errors import ConfigError
from connectors.registry import kind
from tests.files.reading import source
try:
    kind("files").open(source({"path": "*.csv"}, "s3://bucket/drop"))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Install s3fs" in done.stdout


def test_a_credential_of_the_store_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_URL", "ftp://someone:s3cretpassword@127.0.0.1:1/drop")
    spec = source(CSV, "env:DROP_URL")

    with pytest.raises(TransientError) as raised, kind("files").open(spec) as connector:
        connector.check()

    assert "s3cretpassword" not in str(raised.value)


def test_a_folder_keeps_its_mode(tmp_path: Path) -> None:
    """Reading leaves nothing beside the files."""
    put(tmp_path, "a.csv", "id\n1\n")
    before = sorted(path.name for path in tmp_path.iterdir()), stat.S_IMODE(tmp_path.stat().st_mode)

    read(tmp_path, CSV)

    assert (sorted(path.name for path in tmp_path.iterdir()), stat.S_IMODE(tmp_path.stat().st_mode)) == before
