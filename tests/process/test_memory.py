"""Memory is flat: a million nested records in less than 300 MB, with a position of the stream's own or of all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from platform_assets.warehouse import Warehouse
from tests.support.sql import run

RECORDS = 1_000_000
TAP = """#!{python} -S
import json, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--discover" in sys.argv:
    print(json.dumps({{"streams": [{{"tap_stream_id": "users", "stream": "users", "schema": {{}}}}]}}))
    sys.exit()
config = json.load(open(words["--config"]))
write = sys.stdout.write
rest = ('"name": "user", "address": {{"street": "Main 1", "city": "Oslo", "geo": {{"lat": 1.5, "lng": 2.25}}}}, '
        '"tags": ["a", "b", "c"], "company": {{"name": "C", "words": ["x y z", "long words of a company"]}}, '
        '"created_at": "2024-01-01T00:00:00Z"')
write('{{"type": "SCHEMA", "stream": "users", "schema": {{"properties": {{}}}}, "key_properties": ["id"]}}\\n')
state = '{{"at": %d}}' if config["shared"] else '{{"bookmarks": {{"users": {{"at": %d}}}}}}'
for n in range(1, config["records"] + 1):
    write('{{"type": "RECORD", "stream": "users", "record": {{"id": %d, %s}}}}\\n' % (n, rest))
    if n % 10_000 == 0:
        write('{{"type": "STATE", "value": ' + state % n + '}}\\n')
"""
SYNC = """
import json, resource, sys
from connectors.specs import parse_source
from connectors.sync import SyncRequest, sync
attributes, dsn = json.loads(sys.argv[1]), sys.argv[2]
source = parse_source(attributes, "memory.yaml")
result = sync(SyncRequest(source, source.streams[0], "cli"), dsn)
print(json.dumps([result.rows.loaded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_million_nested_records_stay_below_300_mb(warehouse: Warehouse, tmp_path: Path, is_shared: bool) -> None:
    tap = tmp_path / "tap"
    tap.write_text(TAP.format(python=sys.executable))
    tap.chmod(0o755)
    config = {"records": RECORDS, "shared": is_shared}
    attributes = {
        "source": "big", "owner": "team:test", "streams": [{"name": "users"}],
        "connector": {"kind": "singer", "executable": str(tap), "config": config},
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", SYNC, json.dumps(attributes), warehouse.loader_dsn],
        capture_output=True, check=True, timeout=600, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    loaded, peak_mb = json.loads(done.stdout)
    assert loaded == RECORDS
    assert peak_mb < 300
    assert run(warehouse.admin_dsn, "select count(*), count(distinct id) from raw_big.users") == [(RECORDS, RECORDS)]
    assert run(warehouse.admin_dsn, "select count(*) from ops.pieces") == [(0,)]
