"""`make setup`: the right Python or a clear word, a private .env, nothing to do the second time."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Project

TOOLS = ("sh", "dirname", "cat", "cksum", "df", "awk", "cp", "cut", "head", "tail", "grep")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what the script needs and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def set_up(project: Project, path: Path) -> "subprocess.CompletedProcess[str]":
    shutil.copytree(ROOT / "scripts", project.root / "scripts")
    return subprocess.run(
        ["/bin/sh", "scripts/setup.sh"],
        cwd=project.root,
        env={"PATH": str(path), "UV_VERSION": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_python_is_said_in_three_lines_with_code_three(project: Project, tools: Path) -> None:
    done = set_up(project, tools)
    assert done.returncode == 3
    first, second, third = done.stderr.splitlines()
    assert first == "set-up: Python 3.11, 3.12 or 3.13 is needed; there is no python3 on PATH."
    assert "apt install python3.11" in second
    assert "make setup PYTHON=" in third


def test_a_python_that_is_too_old_is_named_with_its_version(project: Project, tools: Path) -> None:
    old = tools / "python3"
    old.write_text('#!/bin/sh\ncase "$2" in *platform*) echo 3.9.18 ;; *) exit 1 ;; esac\n', encoding="utf-8")
    old.chmod(0o755)
    done = set_up(project, tools)
    assert done.returncode == 3
    assert "is needed; the python3 on PATH is 3.9.18." in done.stderr


def test_too_little_disk_is_said_before_anything_is_installed(project: Project, tools: Path) -> None:
    small = tools / "df"
    small.unlink()
    small.write_text("#!/bin/sh\necho header\necho disk 9 9 1024 99% /\n", encoding="utf-8")
    small.chmod(0o755)
    done = set_up(project, tools)
    assert done.returncode == 9
    assert "set-up: 1 MB free in " in done.stderr
    assert not (project.root / ".venv").exists()


def test_dotenv_is_made_once_and_for_its_owner_only(project: Project, tools: Path) -> None:
    set_up(project, tools)
    dotenv = project.root / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert dotenv.read_text(encoding="utf-8") == (ROOT / ".env.example").read_text(encoding="utf-8")


@pytest.mark.slow
def test_setup_works_with_an_empty_environment_and_does_nothing_twice(project: Project) -> None:
    shutil.copytree(ROOT / "scripts", project.root / "scripts")
    for name in ("Makefile", "README.md"):
        shutil.copy(ROOT / name, project.root / name)
    words = ["make", "setup", f"PYTHON={sys.executable}"]
    done, again = (
        subprocess.run(
            words, cwd=project.root, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
        )
        for _ in range(2)
    )
    assert done.returncode == 0, done.stderr
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    headwater = [str(project.root / ".venv" / "bin" / "headwater"), "--help"]
    assert "doctor" in subprocess.run(headwater, capture_output=True, text=True, check=True).stdout
