"""The suites of the ecosystems themselves, singer_sdk, singer-tools and airbyte_cdk, each in its own environment."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import INGEST, Project, project
from tests.export.serving import ORDERS, SOURCE, TOKEN, shop
from tests.support.programs import environment, programs

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent / "conformance"
__all__ = ["programs", "project"]


@pytest.fixture
def exported(project: Project, tmp_path: Path) -> Generator[Mapping[str, Path]]:
    """`singer` and `airbyte`: programs that run the shop; `config`: their configuration. The shop is open."""
    project.source(SOURCE.replace("    - {name: lost, path: /lost, records: data}\n", ""))
    found: dict[str, Path] = {}
    for protocol in ("singer", "airbyte"):
        program = tmp_path / f"export-{protocol}"
        command = f'{sys.executable} -m platform_assets.cli export {protocol} shop "$@"'
        home = project.env["HEADWATER_HOME"]
        program.write_text(f"#!/bin/sh\nexport PYTHONPATH={project.root} HEADWATER_HOME={home}\nexec {command}\n")
        program.chmod(0o755)
        found[protocol] = program
    with shop() as api:
        found["config"] = tmp_path / "config.json"
        found["config"].write_text(json.dumps({"SHOP_URL": api.url, "SHOP_TOKEN": TOKEN}))
        yield found


def suite(python: Path, root: Path, file: Path, *words: str, **env: str) -> str:
    """Runs a suite of others; what it said, when all of it passed."""
    shutil.copy(file, root / "test_suite.py")
    ended = subprocess.run(
        [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-c", os.devnull, "--rootdir", str(root), *words,
         str(root / "test_suite.py")],
        cwd=root, env={"PATH": os.defpath, "HOME": str(root), **env}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    return ended.stdout


def passed(said: str, name: str) -> bool:
    return any(line.startswith("PASSED") and f"::{name}" in line for line in said.splitlines())


def acceptance(root: Path, config: Path) -> None:
    tests = {"spec": {"tests": [{"spec_path": "spec.json", "config_path": config.name}]}}
    tests["connection"] = {"tests": [{"config_path": config.name, "status": "succeed"}]}  # type: ignore[dict-item]
    tests |= {name: {"tests": [{"config_path": config.name}]} for name in ("discovery", "basic_read", "full_refresh")}
    document = {"connector_image": "airbyte/source-shop:dev", "acceptance_tests": tests}
    (root / "acceptance-test-config.yml").write_text(json.dumps(document))


def test_the_singer_sdk_passes_an_exported_source(exported: Mapping[str, Path], tmp_path: Path) -> None:
    tools = environment("singer-sdk==0.54.9", "pytest") / "bin"
    root = tmp_path / "suite"
    root.mkdir()
    said = suite(
        tools / "python", root, HERE / "singer_tap.py",
        TAP=str(exported["singer"]), TAP_CONFIG=str(exported["config"]),
    )  # fmt: skip
    for name in ("test_tap_stream_primary_keys[orders]", "test_tap_valid_final_state", "test_tap_discovery"):
        assert passed(said, name)


def test_singer_check_tap_passes_an_exported_source(exported: Mapping[str, Path], tmp_path: Path) -> None:
    """From stdin: with --tap 0.4.1 looks at what its thread has read before that thread has ended."""
    tools = environment("singer-tools==0.4.1", "setuptools<81") / "bin"
    state: list[str] = []
    for records in (len(ORDERS), 1):
        ran = subprocess.run(
            [str(exported["singer"]), "--config", str(exported["config"]), *state],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        ended = subprocess.run(
            [str(tools / "singer-check-tap")], cwd=tmp_path, input=ran.stdout, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "The output is valid." in ended.stdout
        assert f"{records:7} record messages" in ended.stdout
        (tmp_path / "state.json").write_text(json.dumps(json.loads(ran.stdout.splitlines()[-1])["value"]))
        state = ["--state", str(tmp_path / "state.json")]


def test_airbytes_standard_tests_pass_an_exported_source(exported: Mapping[str, Path], tmp_path: Path) -> None:
    tools = environment("airbyte-cdk[dev]==7.39.1", "pytest") / "bin"
    root = tmp_path / "source-shop"
    root.mkdir()
    (root / "metadata.yaml").write_text("data: {name: Shop, dockerRepository: airbyte/source-shop}\n")
    shutil.copy(exported["config"], root / "config.json")
    acceptance(root, root / "config.json")
    said = suite(
        tools / "python", root, HERE / "airbyte_source.py", "-m", "not image_tests", "-k", "not docker",
        SOURCE=str(exported["airbyte"]),
    )  # fmt: skip
    for name in ("test_spec", "test_check", "test_discover", "test_basic_read", "test_fail_read_with_bad_catalog"):
        assert passed(said, name)


def test_airbytes_standard_tests_pass_a_manifest(tmp_path: Path) -> None:
    tools = environment("airbyte-cdk[dev]==7.39.1", "pytest") / "bin"
    root = tmp_path / "source-manifest"
    root.mkdir()
    shutil.copy(Path(__file__).parents[1] / "airbyte" / "manifest.yaml", root)
    with shop() as api:
        (root / "config.json").write_text(json.dumps({"base_url": api.url, "api_token": TOKEN}))
        acceptance(root, root / "config.json")
        said = suite(
            tools / "python", root, HERE / "declarative_source.py", "-m", "not image_tests", "-k", "not docker"
        )
    for name in ("test_spec", "test_check", "test_discover", "test_basic_read"):
        assert passed(said, name)


def test_an_image_of_an_exported_source_is_described(project: Project) -> None:
    project.source(SOURCE)
    shutil.copy(Path(__file__).parents[2] / "Makefile", project.root)
    file = project.root / "Dockerfile.shop"
    ended = project.run("export", "airbyte", "shop", "--dockerfile", str(file))
    assert ended.returncode == 0, ended.stderr
    text = file.read_text()
    root = Path(__file__).parents[2]
    for line in text.splitlines():
        if line.startswith("COPY"):
            assert all(list(root.glob(name.removeprefix("./"))) for name in line.split()[1:-1]), line
    assert 'ENTRYPOINT ["/headwater/.venv/bin/headwater", "export", "airbyte", "shop"]' in text
    assert project.run("export", "airbyte", "shop", "--dockerfile", str(file)).returncode == 3
    assert INGEST.parts[0] in text
