"""A wrong source file: where, what, next step, in at most six lines, and never the secret."""

import traceback

import pytest

from connectors.errors import MAX_LINES, ConfigError
from tests.ingest.conftest import PARTITIONED, SOURCE, STREAMS, Write, load

GOOD = SOURCE + STREAMS

WRONG = {
    "unknown key of a stream": (GOOD.replace("primary_key", "primarykey"), ["streams[orders].primarykey", "unknown"]),
    "wrong type": (GOOD.replace("write: merge", "write: sometimes"), ["streams[orders].write", "merge"]),
    "unknown kind": (GOOD.replace("kind: rest", "kind: rset"), ["connector.kind", "Did you mean 'rest'?"]),
    "literal secret": (GOOD.replace("env:SHOP_TOKEN", "sk_live_4711"), ["connector.auth.token", "must be a reference"]),
    "a mapping for a list": (GOOD.replace("[id]", "{id: 1}"), ["primary_key: must be a list"]),
    "a text for a mapping": (f"{GOOD}      cursor: updated_at\n", ["streams[orders].cursor: must be a mapping"]),
    "a word for a duration": (f"{GOOD}      freshness: {{fail_after: 6h}}\n", ["fail_after: must be a duration"]),
    "an unknown shape": (
        f"{GOOD}      pagination: {{type: curser}}\n",
        ["streams[orders].pagination.type: unknown value 'curser'", "Did you mean 'cursor'?"],
    ),
    "a shape that is not named": (f"{GOOD}      pagination: {{param: after}}\n", ["orders].pagination.type: missing"]),
    "unknown key of a shape": (
        f"{GOOD}      pagination: {{type: cursor, param: a, pat: b}}\n",
        ["streams[orders].pagination.pat: unknown key", "Did you mean 'path'?"],
    ),
    "a key twice": (f"{GOOD}      write: append\n", ["line 1", "the key 'write' stands twice"]),
    "no streams": (SOURCE, ["streams", "at least one stream"]),
    "unknown component": (
        GOOD.replace("components.Source", "components.Sorce"),
        ["type", "Did you mean 'platform_assets.components.Source'?"],
    ),
    "not YAML": (GOOD.replace("  owner:", "\towner:"), ["line 4", "is not YAML"]),
    "unknown check": (
        f"{GOOD}      checks: [{{type: volume_anomalie}}]\n",
        ["checks[0].type", "Did you mean 'volume_anomaly'?"],
    ),
    "unknown option of a check": (
        f"{GOOD}      checks: [{{type: volume_anomaly, sensitivty: 3}}]\n",
        ["checks[0].sensitivty", "Did you mean 'sensitivity'?"],
    ),
    "wrong option of a check": (
        f"{GOOD}      checks: [{{type: volume_anomaly, sensitivity: high}}]\n",
        ["checks[0].sensitivity", "valid number"],
    ),
    "wrong severity": (
        f"{GOOD}      checks: [{{type: volume_anomaly, severity: fatal}}]\n",
        ["streams[orders].checks[0].severity", "'warn' or 'error'"],
    ),
    "a check that warns and blocks": (
        f"{GOOD}      checks: [{{type: volume_anomaly, severity: warn, blocking: true}}]\n",
        ["checks[0].blocking", "cannot block", "severity: error"],
    ),
    "a check twice": (
        f"{GOOD}      checks: [{{type: volume_anomaly}}, {{type: volume_anomaly}}]\n",
        ["streams[orders].checks", "declared twice: volume_anomaly"],
    ),
    "an owner that is nobody": (GOOD.replace("team:data", "the data people"), ["owner: is no owner", "team:<name>"]),
    "a schedule that is none": (f"{GOOD}      schedule: every hour\n", ["streams[orders].schedule: is no schedule"]),
    "a schedule that never comes": (f"{GOOD}      schedule: 61 * * * *\n", ["61 * * * *"]),
    "a time zone that is none": (
        PARTITIONED.replace("Europe/Berlin", "Europe/Berlim"),
        ["Europe/Berlim"],
    ),
    "a tag that Dagster refuses": (f"{GOOD}      tags: {{'cost center': a b}}\n", ["streams[orders]", "tag"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_source_file_says_where_what_and_next_in_six_lines(name: str, write_source: Write) -> None:
    text, expected = WRONG[name]
    root = write_source(text)

    with pytest.raises(ConfigError) as caught:
        load(root)

    message = str(caught.value)
    assert len(message.splitlines()) <= MAX_LINES
    assert "platform_assets/defs/ingest/shop/defs.yaml" in message
    assert str(root) not in message
    assert "sk_live_4711" not in "".join(traceback.format_exception(caught.value))
    for part in expected:
        assert part in message
    assert caught.value.hint


def test_two_files_cannot_declare_one_source(write_source: Write) -> None:
    write_source(GOOD)
    root = write_source(GOOD, "shop_copy")

    with pytest.raises(ConfigError, match=r"'shop' is declared in platform_assets/defs/ingest/shop/defs\.yaml already"):
        load(root)
