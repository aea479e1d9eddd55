"""A source file that contradicts itself is refused where it is read, not by its first sync."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.errors import MAX_LINES, ConfigError
from connectors.specs import SourceSpec
from platform_assets.sources import COMPONENT, read_source_file

Stream = dict[str, Any]
MERGE: Stream = {"primary_key": "id", "write": "merge"}
SLICES = {"by": "day", "start": "2024-01-01"}


def column(**facts: Any) -> Stream:
    return {"columns": {"v": facts}}


def check(kind: str, *, of: Stream | None = None, **options: Any) -> Stream:
    return {"checks": [{"type": kind, **options}], **(of or {})}


def rule(facts: Stream, **options: Any) -> Stream:
    return check("row_rule", column="v", of=column(**facts), **options)


def read(folder: Path, *streams: Stream) -> SourceSpec:
    path = folder / "defs.yaml"
    named = [{"name": "orders", **streams[0]}, *streams[1:]]
    attributes = {"source": "shop", "owner": "team:x", "connector": {"kind": "python", "module": "m"}, "streams": named}
    path.write_text(yaml.safe_dump({"type": COMPONENT, "attributes": attributes}), encoding="utf-8")
    (spec,) = read_source_file(path, folder)
    return spec


def refused(folder: Path, *streams: Stream) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, *streams)
    assert caught.value.where.startswith("defs.yaml: streams[orders]"), caught.value.where
    assert not caught.value.where.endswith((".", ":"))
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) <= MAX_LINES
    assert "pydantic" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"type": "text", "precision": 2, "accepted_values": ["ok", "open"]}, "'open' is longer than precision: 2"),
        ({"type": "decimal", "precision": 4, "scale": 2, "accepted_values": ["123.50"]}, "does not fit precision: 4"),
        ({"type": "decimal", "precision": 4, "scale": 2, "accepted_values": ["1.234"]}, "does not fit precision: 4"),
        ({"type": "decimal", "precision": 4, "scale": 2, "accepted_values": ["1.5"]}, "is stored as '1.50'"),
        ({"type": "decimal", "accepted_values": ["NaN"]}, "is not of type decimal"),
        ({"type": "bigint", "accepted_values": ["007"]}, "is stored as '7'"),
        ({"type": "bigint", "accepted_values": ["9223372036854775808"]}, "does not fit bigint"),
        ({"type": "double", "accepted_values": ["1.0"]}, "is stored as '1'"),
        ({"type": "date", "accepted_values": ["20240131"]}, "is stored as '2024-01-31'"),
        ({"accepted_values": []}, "accepted_values: [] lets no value in"),
        ({"type": "text", "unit": "EUR"}, "unit belongs to numbers"),
        ({"type": "timestamp", "unit": "s"}, "unit belongs to numbers"),
        ({"rule": "hash", "key": "env:K", "type": "text", "precision": 10}, "rule: hash stores 64 characters"),
        ({"rule": "truncate", "length": 9, "type": "text", "precision": 5}, "rule: truncate stores up to 9 characters"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(tmp_path: Path, facts: Stream, why: str) -> None:
    error = refused(tmp_path, column(**facts))
    assert error.where == "defs.yaml: streams[orders].columns.v"
    assert why in error.what


@pytest.mark.parametrize(
    ("stream", "where", "why"),
    [
        ({"primary_key": ["id", "id"]}, "", "primary_key names id twice"),
        (column(accepted_values=["x", "NA"]) | {"null_values": ["NA"]}, "", "'NA' is one of null_values"),
        ({"cursor": {"field": "v", "lag": "-PT1H"}}, ".cursor.lag", "greater than or equal to 0"),
        ({"cursor": {"field": "v", "tolerance": "-PT1H"}}, ".cursor.tolerance", "greater than or equal to 0"),
        ({"window": {"seconds": "-PT1S"}}, ".window.seconds", "greater than or equal to 0"),
        ({"limits": {"time": "PT0S"}}, ".limits.time", "greater than 0"),
        ({"backfill": {"cool_down": "-PT1S"}}, ".backfill.cool_down", "greater than or equal to 0"),
        (
            {"cursor": {"field": "v", "lag": "PT1H"}, **MERGE, **column(type="bigint")},
            "",
            "cursor.lag is a time, and columns.v.type is bigint",
        ),
        ({"cursor": {"field": "v"}, **column(type="json")}, "", "columns.v.type: json contradicts cursor"),
        ({"cursor": {"field": "v"}, **column(type="bool")}, "", "columns.v.type: bool contradicts cursor"),
        ({"cursor": {"field": "v"}, **column(nullable=True)}, "", "columns.v.nullable: true contradicts cursor"),
        (
            {"cursor": {"field": "v"}, "partitions": SLICES, **column(type="bigint")},
            "",
            "partitions are slices of time, and the cursor v is a bigint",
        ),
        (
            {"cursor": {"field": "v"}, "partitions": {**SLICES, "timezone": "Europe/Berlim"}},
            ".partitions.timezone",
            "Did you mean 'Europe/Berlin'?",
        ),
        ({"write": "append", "merge": "delete-insert"}, "", "merge: delete-insert has no effect with write: append"),
    ],
)
def test_facts_of_a_stream_that_contradict_each_other_are_refused(
    tmp_path: Path, stream: Stream, where: str, why: str
) -> None:
    error = refused(tmp_path, stream)
    assert error.where == f"defs.yaml: streams[orders]{where}"
    assert why in error.what


@pytest.mark.parametrize(
    ("stream", "key", "why"),
    [
        (check("rwo_rule", column="amount"), ".type", "unknown check 'rwo_rule'"),
        (check("row_rule", column="v", mn=3), ".mn", "unknown key"),
        (check("row_rule", column="v"), "", "needs min, max or pattern"),
        (check("row_rule", column="v", min=5, max=3), "", "min 5 is above max 3"),
        (check("row_rule", column="v", min="2024-02-01", max="2024-01-01"), "", "is above max 2024-01-01"),
        (rule({"type": "bigint"}, min="10", max=9), "", "min 10 is above max 9"),
        (check("row_rule", column="v", pattern="("), ".pattern", "is no regular expression"),
        (check("row_rule", column="v", pattern="[a-"), ".pattern", "is no regular expression"),
        (check("row_rule", column="v", min=[1]), ".min", "is a number, or a text such as a date"),
        (check("row_rule", column="v", min=True), ".min", "is a number, or a text such as a date"),
        (rule({"rule": "block"}, min=0), ".column", "columns.v.rule: block keeps v out"),
        (rule({"rule": "hash", "key": "env:K"}, pattern="^a"), "", "columns.v.rule: hash leaves nothing"),
        (rule({"rule": "mask"}, min=0), "", "min 0 is no text, and columns.v is stored as text"),
        (rule({"type": "json"}, min=0), "", "columns.v.type: json has no bounds"),
        (rule({"type": "bigint"}, pattern="^1"), "", "pattern is for texts, and columns.v.type is bigint"),
        (rule({"type": "bigint"}, min="a"), "", "min a does not fit columns.v.type: bigint"),
        (rule({"type": "bigint"}, max="0.5"), "", "max 0.5 does not fit columns.v.type: bigint"),
        (rule({"type": "text"}, min=3), "", "min 3 is no text, and columns.v is stored as text"),
        (rule({"type": "timestamp"}, max=3), "", "max 3 is no time, and columns.v.type is timestamp"),
        (check("reconcile", against="keys"), ".against", "keys need a primary_key"),
        (
            check("reconcile", against="keys", of={"primary_key": "v", **column(rule="hash", key="env:K")}),
            ".against",
            "columns.v.rule: hash changes the key",
        ),
        (check("reconcile", against="sum(v)", of=column(rule="mask")), ".against", "rule: mask changes what is summed"),
        (check("reconcile", against="sum(v)", of=column(rule="block")), ".against", "rule: block keeps v out"),
        (check("reconcile", against="sum(v)", of=column(type="date")), ".against", "type: date has no sum"),
        (check("duplicate_keys"), "", "needs a primary_key"),
        (check("duplicate_keys", max=-1, of={"primary_key": "id"}), ".max", "greater than or equal to 0"),
        (check("late_data"), "", "needs a cursor"),
        (check("reference", column="v", to="customers.id", of=column(rule="block")), ".column", "keeps v out"),
        (check("reference", column="v", to="ordres.id"), ".to", "no stream 'ordres'"),
        (check("reference", column="v", to="shop.ordres.id"), ".to", "no stream 'ordres'"),
        (check("freshness_data"), "", "needs a cursor"),
        (
            check("freshness_data", of={"cursor": {"field": "v"}, **column(type="bigint")}),
            "",
            "the cursor v is a bigint, no time",
        ),
        (check("freshness_data", fail_after="PT0S", of={"cursor": {"field": "v"}}), ".fail_after", "greater than 0"),
        (
            check("freshness_data", fail_after="PT1H", warn_after="PT2H", of={"cursor": {"field": "v"}}),
            "",
            "warn_after must be shorter than fail_after",
        ),
        (check("error_rate", minimum=50, last=10), "", "minimum 50 is more than last 10"),
        (check("slow_run", minimum=50, last=10), "", "minimum 50 is more than last 10"),
        (check("volume_anomaly", sensitivity=-3), ".sensitivity", "greater than 0"),
        (check("volume_anomaly", holidays=["02-30"]), ".holidays", "'02-30' is no day of any year"),
        (check("volume_anomaly", history="ten weeks"), ".history", "must be a duration such as PT1H or P1D"),
    ],
)
def test_a_check_that_could_never_be_judged_is_refused(tmp_path: Path, stream: Stream, key: str, why: str) -> None:
    error = refused(tmp_path, stream)
    assert error.where == f"defs.yaml: streams[orders].checks[0]{key}"
    assert why in error.what


def test_a_stream_of_corrections_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, {"backfill": {"corrections": {"stream": "chnages", "field": "at"}}}, {"name": "changes"})
    assert error.where == "defs.yaml: streams[orders].backfill.corrections.stream"
    assert (error.what, error.hint) == ("no stream 'chnages' in this source", "Did you mean 'changes'?")


@pytest.mark.parametrize(
    "stream",
    [
        column(type="text", precision=4, accepted_values=["open", "paid"]),
        column(type="decimal", precision=4, scale=2, accepted_values=["1.50", "-12.00"]),
        column(type="decimal", accepted_values=["1.5", "1.50"]),
        column(type="double", accepted_values=["1", "-2.5", "1e+20"]),
        column(type="bigint", accepted_values=["-7", "0"], unit="steps"),
        column(unit="EUR"),
        column(rule="hash", key="env:K", type="text", precision=64),
        column(rule="truncate", length=5, type="text", precision=5),
        {"cursor": {"field": "v", "lag": "P1D"}, **MERGE, **column(type="date", nullable=False)},
        {"cursor": {"field": "v"}, "partitions": SLICES, **column(type="text")},
        rule({"type": "text"}, pattern=r"^\m[[:upper:]]+(?=x)\M\y$"),
        rule({"type": "text"}, min="10", max="9"),
        rule({"type": "text"}, pattern="***=("),
        rule({"type": "decimal"}, min="0.5", max=3),
        rule({"type": "timestamp"}, min="2024-01-01", max="now"),
        rule({"rule": "truncate", "length": 2}, pattern="^[0-9]{2}$"),
        check("row_rule", column="v", min=3, max=3),
        check("reference", column="v", to="elsewhere.things.id"),
        check("reference", column="v", to="orders.id"),
        check("reference", column="v", to="orders.id", of=column(rule="hash", key="env:K")),
        check("reconcile", against="sum(v)", of=column(type="decimal")),
        check("freshness_data", warn_after="P2D", of={"cursor": {"field": "v"}, "freshness": {"fail_after": "P3D"}}),
        check("volume_anomaly", holidays=["02-29", "2024-12-25"]),
    ],
    ids=repr,
)
def test_what_only_looks_like_a_contradiction_is_read(tmp_path: Path, stream: Stream) -> None:
    assert read(tmp_path, stream).streams[0].name == "orders"


def test_a_date_that_yaml_reads_as_one_is_a_bound_like_its_text(tmp_path: Path) -> None:
    from datetime import date

    read(tmp_path, rule({"type": "date"}, min=date(2024, 1, 1), max=date(2024, 1, 31)))
    error = refused(tmp_path, rule({"type": "date"}, min=date(2024, 1, 31), max=date(2024, 1, 1)))
    assert "min 2024-01-31 is above max 2024-01-01" in error.what
