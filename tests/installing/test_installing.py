"""Connectors installed from a package index of the test: a folder of wheels, no network."""

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import (
    MAX_LINES,
    AuthError,
    Cancelled,
    ConfigError,
    HeadwaterError,
    ResourceError,
    TransientError,
)
from connectors.installing import (
    InstalledConnectorSpec,
    Lock,
    Package,
    Watch,
    command_of,
    install,
    installed,
    make_lock,
    read_lock,
    write_lock,
)
from connectors.installing.uv import failure, find_uv
from connectors.installing.venv import folder_of
from connectors.specs import parse_source

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def wheel(folder: Path, name: str, version: str, *, python: str = ">=3.8", needs: str = "", commands: str = "") -> Path:
    """A wheel that prints its version."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"def main():\n    import os\n    print('{name} {version}', sorted(os.environ))\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"
        + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\n"
        + "".join(f"{command} = {module}:main\n" for command in (commands or name).split()),
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    made = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return made


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All that uv can see, and a cache of environments of the test's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("HEADWATER_CONNECTORS", str(tmp_path / "venvs"))
    return folder


def spec(**fields: Any) -> InstalledConnectorSpec:
    return InstalledConnectorSpec.model_validate({"kind": "any", **fields})


def test_a_package_is_installed_once_with_its_dependencies_and_runs_apart_from_ours(index: Path) -> None:
    wheel(index, "tap-shop", "1.0", needs="shop-helper>=1")
    wheel(index, "shop-helper", "1.5")
    lines: list[str] = []
    path = command_of(spec(package="tap-shop==1.0"), "shop", Watch(lines.append))
    told = subprocess.run([str(path)], env={}, capture_output=True, text=True, check=True).stdout
    assert told.startswith("tap-shop 1.0")
    assert any("no lock file" in line for line in lines)
    assert any(line.startswith("installed tap-shop 1.0 in") for line in lines)
    assert not path.is_relative_to(Path(sys.prefix))
    again: list[str] = []
    assert command_of(spec(package="tap-shop==1.0"), "shop", Watch(again.append)) == path
    assert again == []


def test_a_lock_has_every_package_with_its_hash_and_refuses_another_file(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index, "tap-shop", "1.0", needs="shop-helper>=1")
    wheel(index, "shop-helper", "1.5")
    lock = make_lock(Package("tap-shop==1.0", ""), "shop", Watch())
    assert lock.versions == {"tap-shop": "1.0", "shop-helper": "1.5"}
    assert lock.text.count("--hash=sha256:") == 2
    assert lock.package.python == PYTHON
    wheel(index, "shop-helper", "1.5", commands="other")
    # what another machine sees, which has not cached the first file
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another"))
    with pytest.raises(ConfigError, match=r"(?i)hash") as caught:
        install(lock, "shop", Watch())
    assert "headwater connectors upgrade" in str(caught.value)
    assert installed(lock) is None


def test_pins_stay_until_they_are_upgraded(index: Path, tmp_path: Path) -> None:
    wheel(index, "tap-shop", "1.0", needs="shop-helper>=1")
    wheel(index, "shop-helper", "1.5")
    package = Package("tap-shop>=1", "")
    first = make_lock(package, "shop", Watch())
    wheel(index, "shop-helper", "1.6")
    assert make_lock(package, "shop", Watch(), first).versions["shop-helper"] == "1.5"
    newest = make_lock(package, "shop", Watch())
    assert newest.versions["shop-helper"] == "1.6"
    file = tmp_path / "connector.lock"
    write_lock(file, newest)
    assert read_lock(file, package, "shop") == newest
    assert [path.name for path in tmp_path.glob(".lock-*")] == []


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (Package("tap-shop==2.0", ""), "locks tap-shop==1.0 on Python .*, the source file asks for tap-shop==2.0"),
        (Package("tap-shop==1.0", "3.9"), "asks for tap-shop==1.0 on Python 3.9"),
        (Package("tap-shop==1.0", "", ("setuptools<81",)), "other `requires`"),
    ],
)
def test_a_lock_of_something_else_is_refused(tmp_path: Path, package: Package, said: str) -> None:
    file = tmp_path / "connector.lock"
    write_lock(file, Lock(Package("tap-shop==1.0", PYTHON), "tap-shop==1.0 \\\n    --hash=sha256:00"))
    with pytest.raises(ConfigError, match=said):
        read_lock(file, package, "shop")


def test_an_upper_bound_of_python_is_enforced_before_dependencies_are_fetched(index: Path) -> None:
    wheel(index, "tap-shop", "1.0", python=">=3.8,<3.10", needs="shop-helper>=1")
    wheel(index, "shop-helper", "1.0")
    lines: list[str] = []
    with pytest.raises(ConfigError, match=r"tap-shop 1.0 needs Python <3.10,>=3.8") as caught:
        command_of(spec(package="tap-shop==1.0"), "shop", Watch(lines.append))
    assert "Set connector.python to '3.9'" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= MAX_LINES
    assert "Installed 2 packages" not in "\n".join(lines)


def test_a_package_that_does_not_resolve_says_which(index: Path) -> None:
    with pytest.raises(ConfigError, match="tap-nowhere") as caught:
        command_of(spec(package="tap-nowhere==1.0"), "shop", Watch())
    assert len(str(caught.value).splitlines()) <= MAX_LINES


def test_a_half_made_environment_is_never_used(index: Path) -> None:
    wheel(index, "tap-shop", "1.0")
    lock = make_lock(Package("tap-shop==1.0", ""), "shop", Watch())
    folder = folder_of(lock)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tap-shop").write_text("#!/bin/sh\necho half\n")
    (folder / "bin" / "tap-shop").chmod(0o755)
    assert installed(lock) is None
    made = install(lock, "shop", Watch()).executable(None, "shop")
    assert "echo half" not in made.read_text()
    # a Python that is gone makes the environment a half one again
    (folder / "bin" / "python").unlink()
    assert installed(lock) is None


def test_two_at_once_make_it_once_and_who_waits_can_be_stopped(index: Path) -> None:
    wheel(index, "tap-shop", "1.0")
    lock = make_lock(Package("tap-shop==1.0", ""), "shop", Watch())
    folder = folder_of(lock)
    folder.parent.mkdir(parents=True)
    busy = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(busy, fcntl.LOCK_EX)
    stopped = threading.Event()
    with pytest.raises(Cancelled):
        install(lock, "shop", Watch(lambda line: stopped.set(), stopped))
    waiting = threading.Event()
    logs: tuple[list[str], list[str]] = ([], [])

    def go(log: list[str]) -> None:
        install(lock, "shop", Watch(lambda line: (log.append(line), waiting.set())[0]))

    threads = [threading.Thread(target=go, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    assert waiting.wait(20)
    os.close(busy)
    for thread in threads:
        thread.join()
    assert sum(line.startswith("installed ") for log in logs for line in log) == 1


def test_a_git_reference_is_locked_to_its_commit(index: Path, tmp_path: Path) -> None:
    repository = tmp_path / "tap-git"
    repository.mkdir()
    (repository / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tap-git"\nversion = "3.0"\n'
    )
    made = wheel(tmp_path, "tap-git", "3.0")
    (repository / "made.whl.txt").write_text(base64.b64encode(made.read_bytes()).decode())
    (repository / "backend.py").write_text(
        "import base64, pathlib\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    data = base64.b64decode(pathlib.Path('made.whl.txt').read_text())\n"
        f"    pathlib.Path(folder, '{made.name}').write_bytes(data)\n"
        f"    return '{made.name}'\n"
    )
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    lock = make_lock(Package(f"git+file://{repository}", ""), "shop", Watch())
    assert lock.name == "tap-git"
    assert lock.version == commit[:12]
    path = install(lock, "shop", Watch()).executable(None, "shop")
    assert subprocess.run([str(path)], env={}, capture_output=True, text=True).stdout.startswith("tap-git 3.0")


def test_the_command_is_named_where_a_package_has_several(index: Path) -> None:
    wheel(index, "tap-shop", "1.0", commands="tap-shop shop-admin")
    package = {"package": "tap-shop==1.0"}
    with pytest.raises(ConfigError, match="2 commands: shop-admin, tap-shop"):
        command_of(spec(**package), "shop", Watch())
    assert command_of(spec(**package, executable="tap-shop"), "shop", Watch()).name == "tap-shop"
    with pytest.raises(ConfigError, match="no command 'tap'"):
        command_of(spec(**package, executable="tap"), "shop", Watch())


def test_a_build_sees_no_secret_of_ours(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from connectors.installing.uv import _environment

    monkeypatch.setenv("SHOP_TOKEN", "tok_123456")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    seen = _environment()
    assert "SHOP_TOKEN" not in seen
    assert seen["HTTPS_PROXY"] == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("error: Failed to fetch: `https://index/simple/x/`\n  cause: dns error", TransientError),
        ("error: Request failed\n  cause: HTTP status server error (503 Service Unavailable)", TransientError),
        ("error: Failed to fetch\n  cause: HTTP status client error (401 Unauthorized)", AuthError),
        ("error: failed to write to file: No space left on device (os error 28)", ResourceError),
        ("error: Failed to build `x==1`\n  cause: The build backend returned an error", ConfigError),
        ("error: No interpreter found for Python 3.7 in managed installations or search path", ConfigError),
    ],
)
def test_what_uv_says_has_a_class_and_at_most_six_lines(said: str, expected: type[HeadwaterError]) -> None:
    error = failure("shop", "installing x==1", [*said.splitlines(), "x" * 5_000], 1)
    assert type(error) is expected
    assert len(str(error).splitlines()) <= MAX_LINES


def test_uv_is_found_beside_our_python_without_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_uv("shop").parent == Path(sys.executable).parent


def test_the_lock_file_lies_beside_the_source_file_also_in_another_process(tmp_path: Path) -> None:
    attributes = {
        "source": "shop",
        "owner": "team:data",
        "connector": {"kind": "airbyte", "package": "tap-shop==1.0"},
        "streams": [{"name": "orders"}],
    }
    found = parse_source(attributes, "x", tmp_path)
    told = found.model_dump(mode="json", by_alias=True, exclude_unset=True, serialize_as_any=True)
    again = parse_source(json.loads(json.dumps(told)), "x")
    for one in (found, again):
        assert isinstance(one.connector, InstalledConnectorSpec)
        assert one.connector.lock == str(tmp_path / "connector.lock")


@pytest.mark.parametrize(
    ("executable", "said"),
    [("./not-there", "does not exist"), ("surely-no-such-program", "on PATH"), ("./a-text", "no executable file")],
)
def test_a_program_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-text").touch(0o644)
    with pytest.raises(ConfigError, match=said):
        command_of(spec(executable=executable), "shop", Watch())


@pytest.mark.parametrize("text", ["a b c", "git+https://me:secret@host/x", "-e .", "x; import os"])
def test_what_is_no_requirement_is_refused_and_no_password_is_echoed(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        spec(package=text)
    assert "secret@" not in str(caught.value.errors()[0]["msg"])  # type: ignore[attr-defined]  pydantic's
