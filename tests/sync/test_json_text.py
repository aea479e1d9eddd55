"""JSON inside text files."""

import psycopg
import pyarrow as pa

from connectors.contract import Frame
from platform_assets.warehouse import Warehouse
from tests.support.scripted import sync


def test_json_in_a_text_file_is_read_as_json_and_what_is_none_is_quarantined(warehouse: Warehouse) -> None:
    table = pa.table({"id": [1, 2, 3], "j": ['{"a": 1.10}', "oops", None]})
    result = sync(warehouse.loader_dsn, [Frame(table, "x.csv")], write="append", columns={"j": {"type": "json"}})
    assert (result.rows.loaded, result.rows.quarantined) == (2, 1)
    with psycopg.connect(warehouse.admin_dsn) as connection:
        assert connection.execute("select id, j ->> 'a' from raw_unit.things order by id").fetchall() == [
            (1, "1.10"), (3, None),
        ]  # fmt: skip
        assert connection.execute("select field, reason from ops.quarantine").fetchall() == [("j", "no valid JSON")]
