"""discover knows which declared stream reads what is offered under another name; preview breaks no column's name."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from connectors.contract import ReadsWarehouse
from connectors.registry import kind
from connectors.specs import parse_source
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.http.serving import serving
from tests.support import sql

__all__ = ["project"]


def test_files_are_read_by_the_stream_whose_pattern_they_match(tmp_path: Path) -> None:
    for name in ("weather_2013-01-01.csv", "weather_2013-01-02.csv", "notes.jsonl"):
        (tmp_path / name).write_text("id\n1\n", encoding="utf-8")
    attributes = {
        "source": "drop", "owner": "team:data", "connector": {"kind": "files", "url": str(tmp_path)},
        "streams": [{"name": "rain", "path": "weather_*.csv"}],
    }  # fmt: skip
    with kind("files").open(parse_source(attributes, "defs.yaml")) as connector:
        assert {found.name: found.read_by for found in connector.discover()} == {
            "notes.jsonl": (),
            "weather_*.csv": ("rain",),
        }


def test_events_are_read_by_the_streams_that_name_them(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret-value")
    for number, event in enumerate(("push", "invoice.paid", "in.voice")):
        query = "insert into ops.webhook_inbox (delivery_id, source, event_type, body) values"
        sql.run(warehouse.loader_dsn, f"{query} ('{number}', 'hooks', '{event}', '{{}}')")
    attributes = {
        "source": "hooks", "owner": "team:data",
        "connector": {"kind": "webhook", "scheme": "github", "secret": "env:HOOK_SECRET"},
        "streams": [{"name": "everything", "shape": "envelope"}, {"name": "invoices", "events": "invoice.*"}],
    }  # fmt: skip
    with kind("webhook").open(parse_source(attributes, "defs.yaml")) as connector:
        assert isinstance(connector, ReadsWarehouse)
        connector.use_warehouse(warehouse.loader_dsn)
        assert {found.name: found.read_by for found in connector.discover()} == {
            "push": ("everything",),
            "in.voice": ("everything",),
            "invoice.paid": ("everything", "invoices"),
        }


def test_preview_breaks_no_name_in_a_narrow_terminal(project: Project) -> None:
    names = ["sched_departure_time", "sched_arrival_time", "carrier_name_in_full", "origin_airport_code", "identifier"]
    row = dict.fromkeys(names, "a value of forty characters, more or less")
    project.source(
        "type: platform_assets.components.Source\nattributes:\n  source: shop\n  owner: team:data\n"
        "  connector: {kind: rest, base_url: env:SHOP_URL}\n"
        "  streams: [{name: wide, path: /wide}]\n"
    )

    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with serving(lambda e: e.json([row, row])) as server:
        words = [sys.executable, "-m", "platform_assets.cli", "preview", "shop.wide"]
        env = {**project.env, "SHOP_URL": server.url}
        with subprocess.Popen(words, cwd=project.root, env=env, stdin=subprocess.DEVNULL, stdout=inside) as running:
            os.close(inside)
            shown = b"".join(iter(lambda: read(terminal), b"")).decode()
            os.close(terminal)
        assert running.returncode == 0
    assert all(name in shown for name in names)
    assert "row 2" in shown


def read(terminal: int) -> bytes:
    """What the terminal shows next; nothing once the other end is closed, which Linux tells by an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
