"""What the component offers besides definitions: JSON schema, scaffolding, resources."""

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster.components import ScaffoldRequest

from platform_assets.assets.resources import DltResource, SlingResource
from platform_assets.components.source import SourceAttributes, SourceScaffolder
from platform_assets.settings import PROJECT_ROOT
from platform_assets.sources import read_source_file, source_paths
from tests.ingest.conftest import SOURCE, STREAMS


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = SourceAttributes.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def attributes(text: str) -> Any:
    return yaml.safe_load(text)["attributes"]


@pytest.mark.parametrize("path", source_paths(), ids=lambda path: path.parent.name)
def test_the_source_files_satisfy_the_json_schema(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    assert list(validator.iter_errors(attributes(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("primarykey: [id]", "'primarykey' was unexpected"),
        ("write: sometimes", "'sometimes' is not one of"),
        ("object: public.orders", "'object' was unexpected"),
    ],
)
def test_the_json_schema_refuses_what_the_kind_does_not_know(
    wrong: str, said: str, validator: jsonschema.Draft202012Validator
) -> None:
    text = f"{SOURCE}{STREAMS.replace('      write: merge', f'      {wrong}')}"

    messages = [_deepest(error).message for error in validator.iter_errors(attributes(text))]

    assert any(said in message for message in messages), messages


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    return jsonschema.exceptions.best_match([error]) or error


def test_a_scaffolded_source_is_valid_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    folder.mkdir()
    request = ScaffoldRequest(
        type_name="platform_assets.components.Source",
        target_path=folder,
        scaffold_format="yaml",
        project_root=PROJECT_ROOT,
        params=None,
    )

    SourceScaffolder().scaffold(request)

    (spec,) = read_source_file(folder / "defs.yaml", tmp_path)
    assert (spec.source, [stream.name for stream in spec.streams]) == ("crm", ["items"])


def test_a_resource_hands_its_settings_to_the_engine_for_one_op_and_never_over_the_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "DEBUG")
    monkeypatch.delenv("LOAD__WORKERS", raising=False)
    monkeypatch.delenv("SLING_BINARY", raising=False)

    with DltResource(load_workers=3).applied(), SlingResource(binary="/opt/sling").applied():
        inside = {name: os.environ.get(name) for name in ("RUNTIME__LOG_LEVEL", "LOAD__WORKERS", "SLING_BINARY")}

    assert inside == {"RUNTIME__LOG_LEVEL": "DEBUG", "LOAD__WORKERS": "3", "SLING_BINARY": "/opt/sling"}
    assert "LOAD__WORKERS" not in os.environ
    assert "SLING_BINARY" not in os.environ


def test_the_official_resources_are_one_call_away() -> None:
    from dagster_dlt import DagsterDltResource
    from dagster_sling import SlingResource as OfficialSlingResource

    assert isinstance(DltResource().official(), DagsterDltResource)
    assert isinstance(SlingResource().official([]), OfficialSlingResource)
