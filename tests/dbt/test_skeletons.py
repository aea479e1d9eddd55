"""Every fact of a contract reaches all that it compiles to, and models that nobody edited follow it by one command."""

from pathlib import Path
from typing import Any

import pytest

from connectors.specs import SourceSpec, parse_source
from platform_assets.contracts.dbt_files import generated, mart_files, out_of_step
from platform_assets.contracts.targets import compiled

COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"type": "bigint"},
    "amount": {"type": "double", "unit": "eur", "description": "Paid"},
    "state": {"type": "text", "accepted_values": ["open", "shut"]},
}
STAGING = Path("models/staging/shop")
MART = Path("models/marts/sales")


def shop(key: str = "id", **changes: dict[str, Any]) -> SourceSpec:
    columns = {name: facts | changes.get(name, {}) for name, facts in COLUMNS.items()}
    stream = {"name": "orders", "path": "/o", "primary_key": key, "write": "merge", "columns": columns}
    connector = {"kind": "rest", "base_url": "http://127.0.0.1:9"}
    return parse_source({"source": "shop", "owner": "team:x", "connector": connector, "streams": [stream]}, "d.yaml")


def write(source: SourceSpec, project: Path) -> set[str]:
    """`headwater contract write`; the names of the files that it wrote."""
    found = out_of_step([source], project)
    for file in found:
        file.write(project)
    return {str(file.path.relative_to("models")) for file in found}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Everything of the shop as it is written at first, a mart too."""
    for file in (*generated(shop()), *mart_files(shop(), shop().streams[0], "sales")):
        file.write(tmp_path)
    return tmp_path


SOURCE, STAGED, MARTS = (
    {"staging/shop/shop.yml"},
    {"staging/shop/stg_shop__orders.sql", "staging/shop/stg_shop__orders.yml"},
    {"marts/sales/orders.sql", "marts/sales/orders.yml"},
)


@pytest.mark.parametrize(
    ("change", "compiles_to", "said"),
    [
        (
            {"amount": {"type": "decimal", "precision": 12, "scale": 2}}, {"dlt", "dbt", "staging", "mart"},
            ['amount, data_type: "numeric(12,2)"', "amount::numeric(12,2) as amount_eur", 'data_type: numeric(12,2)'],
        ),
        (
            {"amount": {"nullable": False}}, {"dlt", "engine", "mart"},
            ["nullable: false", "data_tests: [not_null]", "constraints: [{type: not_null}]"],
        ),
        (
            {"key": "state"}, {"dlt", "engine", "mart"},
            ["key: true}}}\n          - {name: _synced_at", "[not_null, unique, {accepted_values",
             "primary_key, columns: [state]"],
        ),
        ({"amount": {"description": "Due"}}, set(), ["Due (eur)."] * 3),
        (
            {"amount": {"unit": "usd"}}, {"staging", "mart"},
            ["meta: {unit: usd}", "amount::double precision as amount_usd", "name: amount_usd"],
        ),
        ({"amount": {"pii": "personal"}}, set(), ["pii: personal"] * 3),
        ({"state": {"accepted_values": ["open", "lost"]}}, {"engine"}, ["[open, lost]"] * 3),
    ],
)  # fmt: skip
def test_every_fact_of_a_column_reaches_all_that_it_compiles_to(
    project: Path, change: dict[str, Any], compiles_to: set[str], said: list[str]
) -> None:
    changed = shop(**change)
    before, after = compiled(shop().streams[0]), compiled(changed.streams[0])
    assert {name for name in before if before[name] != after[name]} == compiles_to

    written = write(changed, project)

    assert written & SOURCE
    for files, words in zip((SOURCE, STAGED, MARTS), said, strict=True):
        assert words in "".join((project / "models" / name).read_text(encoding="utf-8") for name in sorted(files))
        assert written & files
    assert write(changed, project) == set()


@pytest.mark.parametrize("name", sorted(STAGED | MARTS))
def test_a_model_is_its_authors_from_the_first_edit_of_either_file(project: Path, name: str) -> None:
    place = project / "models" / name
    place.write_text(place.read_text(encoding="utf-8").replace("amount", "sum"), encoding="utf-8")
    edited = STAGED if name in STAGED else MARTS

    written = write(shop(amount={"unit": "usd"}), project)

    assert written == (SOURCE | STAGED | MARTS) - edited
    assert "sum" in place.read_text(encoding="utf-8")


def test_a_mart_of_another_stream_of_that_name_does_not_follow(project: Path) -> None:
    written = write(shop().model_copy(update={"source": "market"}), project)

    assert not written & MARTS


def test_what_an_author_took_away_of_a_mart_does_not_come_back(project: Path) -> None:
    (project / MART / "orders.sql").unlink()

    assert write(shop(amount={"unit": "usd"}), project) == SOURCE | STAGED
