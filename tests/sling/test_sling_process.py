"""A Sling that misbehaves, played by a small program: nothing is believed without its end and its count."""

import io
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest

from connectors.errors import Cancelled, ConfigError, SourceError, TransientError
from tests.sling.reading import read, reading, source

ROOT = Path(__file__).parents[2]
SQLITE = {"connection": "sqlite:///nowhere.db"}
STREAM = {"name": "t", "sql": "select 1"}


def arrow(rows: int) -> bytes:
    """What Sling writes: an Arrow file of record batches."""
    sink = io.BytesIO()
    table = pa.table({"id": pa.array(map(str, range(rows)), pa.string())})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue()


def is_gone(pid: int) -> bool:
    """Waits for the end of a process that is nobody's child here."""
    try:
        psutil.Process(pid).wait(30)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def sling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program in Sling's place: it has `arrow` bytes and `log(line)`, and runs the given code."""

    def installed(code: str, rows: int = 250) -> Path:
        (tmp_path / "data.arrow").write_bytes(arrow(rows))
        program = tmp_path / "program"
        program.write_text(
            f"#!{sys.executable}\n"
            "import os, signal, subprocess, sys, time\n"
            f"arrow = open({str(tmp_path / 'data.arrow')!r}, 'rb').read()\n"
            "def log(line):\n    print(line, file=sys.stderr, flush=True)\n"
            "def out(data):\n    sys.stdout.buffer.write(data)\n    sys.stdout.buffer.flush()\n"
            f"{code}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("SLING_BINARY", str(program))
        return program

    return installed


def test_what_is_whole_and_counted_is_taken(sling: Any, tmp_path: Path) -> None:
    sling("out(arrow); log('\\x1b[90m2026-01-01 10:00:00\\x1b[0m \\x1b[32mINF\\x1b[0m wrote 250 rows [9 r/s] to x')")

    assert len(read(tmp_path, source(STREAM, SQLITE)).rows) == 250


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("log('INF execution succeeded')", "delivered no data"),
        ("out(b'hello world, this is no arrow')", "delivered no data"),
        ("out(arrow[: len(arrow) // 2])", "broke after"),
        ("out(arrow); log('INF wrote 251 rows')", "read 251 rows but delivered 250"),
        ("log('panic: arrow/decimal128: too wide'); log('goroutine 1 [running]:'); sys.exit(2)", "Sling crashed"),
        ("log('fatal:'); log('~ something new'); sys.exit(1)", "something new"),
        ("sys.exit(3)", "it gave no reason"),
    ],
)
def test_an_answer_that_is_not_whole_is_source(sling: Any, tmp_path: Path, code: str, says: str) -> None:
    sling(code)

    with pytest.raises(SourceError, match=says):
        read(tmp_path, source(STREAM, SQLITE))


def test_an_unknown_transform_that_sling_skips_is_config(sling: Any, tmp_path: Path) -> None:
    sling("log(\"WRN did find find transform named: 'x'\"); time.sleep(.1); out(arrow); log('INF wrote 250 rows')")

    with pytest.raises(ConfigError, match="ignored a transform"):
        read(tmp_path, source(STREAM, SQLITE))


@pytest.mark.slow
def test_a_process_that_ignores_the_request_to_end_is_killed_with_its_children(sling: Any, tmp_path: Path) -> None:
    marker = tmp_path / "child.pid"
    sling(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'])\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\n"
        "out(arrow[:8])\n"
        "time.sleep(600)"
    )

    with pytest.raises(TransientError, match="nothing came for 1 s"):
        read(tmp_path, source(STREAM, {**SQLITE, "stall_timeout": "PT1S"}))

    assert is_gone(int(marker.read_text()))


def test_endless_words_do_not_fill_the_memory(sling: Any, tmp_path: Path) -> None:
    sling("log('x' * 30_000_000); log('fatal:'); log('~ the end'); sys.exit(1)")

    with pytest.raises(SourceError, match="the end"):
        read(tmp_path, source(STREAM, SQLITE))


def test_a_read_that_is_cancelled_before_it_starts_starts_nothing_for_long(sling: Any, tmp_path: Path) -> None:
    sling("time.sleep(600)")

    with reading(tmp_path, source(STREAM, SQLITE)) as (messages, context):
        context.cancelled.set()
        with pytest.raises(Cancelled):
            next(messages)


def test_a_reader_that_is_killed_takes_sling_with_it(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id, md5(i::text) as note from generate_series(1, 2000000) i")
    code = (
        "import sys, pathlib\n"
        "from tests.sling.reading import *\n"
        "with reading(pathlib.Path(sys.argv[1]), source({'name': 'big', 'object': 'public.big'})) as (messages, _):\n"
        "    next(messages)\n"
        "    print(slings()[0].pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as reader:
        assert reader.stdout
        child = int(reader.stdout.readline())
        assert psutil.pid_exists(child)
        reader.kill()

    assert is_gone(child)
