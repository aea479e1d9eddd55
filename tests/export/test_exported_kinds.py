"""A bespoke connector and a webhook inbox on their way out; rest and database have modules of their own."""

import json
from pathlib import Path

import psycopg
import pytest

from connectors.contract import ReadsWarehouse
from connectors.export.reading import Reading
from connectors.export.schemas import shapes
from connectors.registry import kind
from connectors.specs import parse_source
from platform_assets.warehouse import Warehouse
from tests.python_kind.modules import Modules

LEDGER = """
from decimal import Decimal

from connectors.custom import RowsConnector


class Ledger(RowsConnector):
    ordered = True
    batch = 2

    def rows(self, stream, since, until):
        for n in range(1, 6):
            if (since or "") <= f"2024-01-0{n}T00:00:00Z":
                yield {"id": n, "at": f"2024-01-0{n}T00:00:00Z", "amount": Decimal("0.10") * n}
"""


def test_a_bespoke_connector_is_exported_and_goes_on_from_any_of_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Modules(tmp_path, monkeypatch).source(
        LEDGER, {"primary_key": "id", "cursor": {"field": "at"}, "write": "merge"}
    )
    with kind("python").open(spec) as connector:
        (shape,) = shapes(spec, connector)
        items = list(Reading(connector, spec.source).lines(shape.stream, {}))
        states = [item for item in items if not isinstance(item, bytes)]
        again = [
            item for item in Reading(connector, spec.source).lines(shape.stream, states[0]) if isinstance(item, bytes)
        ]
    assert shape.types["id"] == "bigint"
    assert [line for line in items if isinstance(line, bytes)][2].endswith(b'"amount":0.30}')
    assert [state["cursor"]["value"][8:10] for state in states] == ["02", "04", "05"]
    assert [json.loads(line)["id"] for line in again] == [2, 3, 4, 5]


def test_a_webhook_inbox_is_exported_from_where_it_was_left(warehouse: Warehouse) -> None:
    spec = parse_source(
        {
            "source": "hub",
            "owner": "team:test",
            "connector": {"kind": "webhook", "scheme": "github", "secret": "env:HUB_SECRET"},
            "streams": [{"name": "pushes", "events": "push"}],
        },
        "tests/hub.yaml",
    )
    store = "insert into ops.webhook_inbox (delivery_id, source, event_type, body) values (%s, 'hub', 'push', %s)"
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        session.execute(store, ["d1", b'{"ref": "a"}'])
        with kind("webhook").open(spec) as connector:
            assert isinstance(connector, ReadsWarehouse)
            connector.use_warehouse(warehouse.loader_dsn)
            (shape,) = shapes(spec, connector)
            *first, state = Reading(connector, "hub").lines(shape.stream, {})
            session.execute(store, ["d2", b'{"ref": "b"}'])
            second = list(Reading(connector, "hub").lines(shape.stream, state))
    assert shape.types["ref"] == "text"
    assert [json.loads(line)["ref"] for line in first if isinstance(line, bytes)] == ["a"]
    assert [json.loads(line)["ref"] for line in second if isinstance(line, bytes)] == ["b"]
