"""`headwater slots`, and that no slot is left behind unseen."""

import json
from collections.abc import Iterator

import pytest

from connectors.errors import ConfigError
from connectors.kinds.database import KIND
from connectors.specs import parse_source
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.cli.test_reading import headwater_only
from tests.database.reading import URL_VARIABLE
from tests.database.replicating import SLOT, STREAM, Source, named, run, slots

__all__ = ["project"]
FILE = """\
type: platform_assets.components.Source
attributes:
  source: {source}
  owner: team:data
  connector: {{kind: database, url: env:TEST_DATABASE_KIND_URL}}
  streams:
    - {{name: {stream}, primary_key: id, write: merge, replication: {{publication: shop}}}}
"""
OTHERS = ("headwater_shop_eu_orders", "headwater_shops_orders", "somebody_elses")


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    source.execute("set synchronous_commit = on")
    source.execute("create table orders (id int primary key)")
    source.execute("create publication shop for table orders")
    with named(source_url):
        yield source


def test_slots_are_listed_with_their_streams_and_orphans_are_offered_to_be_dropped(
    orders: Source, source_url: str, warehouse: Warehouse, env: dict[str, str], project: Project
) -> None:
    environment = headwater_only(env) | {URL_VARIABLE: source_url}
    run(warehouse)
    # a slot with a name of its own, whose stream is taken out of the source file afterwards
    run(
        warehouse, STREAM | {"name": "bills", "table": "orders", "replication": {"publication": "shop", "slot": "mine"}}
    )
    for name in OTHERS:
        orders.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    project.source(FILE.format(source="shop", stream="orders"))
    project.source(FILE.format(source="shop_eu", stream="orders"), "shop_eu")

    listed = project.run("slots", "shop", **environment)

    assert listed.returncode == 0, listed.stderr
    assert [line.split(", holds ")[0] for line in listed.stdout.splitlines()] == [
        f"slot {SLOT}: idle, reserved",
        "slot mine: idle, reserved",
    ]
    assert [line.split("; ")[-1] for line in listed.stdout.splitlines()] == [
        "stream orders",
        "no stream: headwater slots shop --drop mine",
    ]

    dropped = project.run("slots", "shop", "--drop", "mine", "--json", **environment)

    assert (dropped.returncode, dropped.stderr.strip()) == (0, "dropped slot mine")
    (left,) = json.loads(dropped.stdout)
    assert left["held_bytes"] > 0
    assert {name: left[name] for name in ("name", "is_active", "status", "warning", "stream")} == {
        "name": SLOT, "is_active": False, "status": "reserved", "warning": "", "stream": "orders",
    }  # fmt: skip
    assert slots(orders) == sorted([SLOT, *OTHERS])


@pytest.mark.slow
def test_wrong_words_drop_nothing(
    orders: Source, source_url: str, warehouse: Warehouse, env: dict[str, str], project: Project
) -> None:
    environment = headwater_only(env) | {URL_VARIABLE: source_url}
    project.source(FILE.format(source="shop", stream="orders"))
    none = project.run("slots", "shop", **environment)
    assert (none.returncode, none.stdout) == (0, "shop has no replication slot\n")
    run(warehouse)
    orders.execute("select pg_create_logical_replication_slot('somebody_elses', 'pgoutput')")

    for name, hint in (("headwater_shop_order", f"Did you mean '{SLOT}'?"), ("somebody_elses", f"Known: {SLOT}.")):
        refused = project.run("slots", "shop", "--drop", name, **environment)
        assert refused.returncode == ConfigError.exit_code
        assert f"no slot {name!r}" in refused.stderr
        assert hint in refused.stderr
    project.source(
        FILE.format(source="shop", stream="orders").replace("kind: database, url: env:", "kind: files, url: /")
    )
    assert project.run("slots", "nowhere", **environment).returncode == ConfigError.exit_code
    assert slots(orders) == [SLOT, "somebody_elses"]


def test_two_streams_never_share_a_slot(orders: Source) -> None:
    replication = {"publication": "shop", "slot": "one"}
    streams = [STREAM | {"name": name, "replication": replication} for name in ("orders", "bills")]
    spec = parse_source(
        {
            "source": "shop",
            "owner": "team:data",
            "connector": {"kind": "database", "url": f"env:{URL_VARIABLE}"},
            "streams": streams,
        },
        "shop.yaml",
    )

    with pytest.raises(ConfigError, match=r"slot one has two readers: orders, bills"):
        KIND.open(spec)
