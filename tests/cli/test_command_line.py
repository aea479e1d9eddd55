"""What every command shares: start-up, errors, exit codes, secrets."""

import json
import re
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from platform_assets.cli import main
from platform_assets.cli.commands import COMMANDS
from tests.cli.conftest import GOOD, ROOT, Project, serving

HEAVY = ("dagster", "dlt", "dbt", "pyarrow", "psycopg", "httpx", "rich", "yaml", "sqlalchemy")
SECRET = "tok_9f8e7d6c5b4a"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, json\nfrom platform_assets.cli import main\ncode = main(['--help'])\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == [0, []]
    for entry in COMMANDS:
        assert re.search(rf"^  {entry.name} +\S", done.stdout, re.MULTILINE), entry.name


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_explains_itself(entry: object) -> None:
    name = getattr(entry, "name", "")
    done = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", name, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_what_the_commands_of_a_group_do_is_told_in_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "when and by which sync it was first seen, what changed, who decided, and why." in said


def test_dbt_explains_what_headwater_adds_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dbt", "rollback", "--help"]) == 0
    assert "--slim` builds what was modified" in capsys.readouterr().out


def test_every_command_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [entry.name for entry in COMMANDS if f"headwater {entry.name}" not in text] == []


@pytest.mark.parametrize("words", [["nonsense"], ["sync"], ["check", "a", "b"], ["preview", "a.b", "--rows", "many"]])
def test_a_wrong_command_line_says_so_in_six_lines_with_code_two(project: Project, words: list[str]) -> None:
    done = project.run(*words)
    assert done.returncode == 2
    assert 0 < len(done.stderr.strip().splitlines()) <= 6
    assert "Traceback" not in done.stderr


def test_an_error_is_its_class_place_and_next_step_without_a_traceback(project: Project) -> None:
    project.source(GOOD)
    done = project.run("check", "shpo")
    assert done.returncode == 3
    assert done.stderr == "config error: shpo: no such source\nDid you mean 'shop'?\n"
    assert done.stdout == ""


MISSPELT = GOOD.replace("write: merge}", "write: merge, checks: [{type: rwo_rule, column: amount}]}")
"""Of the source `shop`: its blocking check would have been passed over."""


@pytest.mark.parametrize(
    "words", [["sources"], ["plan", "--offline"], ["sync", "shop"], ["check", "shop"]], ids=" ".join
)
def test_a_misspelt_check_is_refused_by_every_command_that_reads_the_file(project: Project, words: list[str]) -> None:
    project.source(MISSPELT)
    done = project.run(*words)
    assert done.returncode == 3
    assert done.stderr == (
        "config error: platform_assets/defs/ingest/shop/defs.yaml: streams[orders].checks[0].type: "
        "unknown check 'rwo_rule'\nDid you mean 'row_rule'?\n"
    )


@pytest.mark.parametrize("words", [["--debug", "check", "shpo"], ["check", "shpo", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(project: Project, words: list[str]) -> None:
    done = project.run(*words)
    assert done.returncode == 3
    assert "Traceback (most recent call last)" in done.stderr


def test_an_unexpected_error_is_one_line_that_names_debug(project: Project) -> None:
    broken = project.root / "platform_assets" / "sources.py"
    broken.write_text("raise RuntimeError('two\\nlines')\n", encoding="utf-8")
    done = project.run("sources")
    assert done.returncode == 1
    assert done.stderr == "unexpected RuntimeError: two; run again with --debug for the traceback\n"


def test_ctrl_c_ends_with_130(project: Project) -> None:
    asked, may_end = Event(), Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            may_end.wait(60)

        def log_message(self, *args: object) -> None: ...

    project.source(GOOD)
    with serving(Silent) as url:
        process = project.start("check", "shop", SHOP_URL=url, SHOP_TOKEN=SECRET)
        try:
            assert asked.wait(30), process.communicate(timeout=10)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            may_end.set()
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_secret_that_the_source_echoes_is_never_shown(project: Project) -> None:
    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"error": f"{self.headers['Authorization']} is not known"}).encode()
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    project.source(GOOD)
    with serving(Echo) as url:
        done = project.run("check", "shop", "--debug", SHOP_URL=url, SHOP_TOKEN=SECRET)
    assert done.returncode == 4, done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_the_password_of_a_url_is_never_shown(project: Project) -> None:
    script = (
        "import os\nos.environ['ANY_URL'] = 'postgresql://me:hunter2hunter2@db/x'\n"
        "from platform_assets.cli import output\noutput.mask_streams()\n"
        "print(os.environ['ANY_URL'], 'hunter2hunter2', 'https://a:b@c/')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "postgresql://me:••••@db/x •••• https://a:••••@c/\n"


def test_a_closed_pipe_is_no_error(project: Project, tmp_path: Path) -> None:
    project.source(GOOD)
    done = subprocess.run(  # noqa: S602  the pipe is what is tested
        f"'{sys.executable}' -m platform_assets.cli sources --json | head -c 1",
        shell=True,
        cwd=project.root,
        env=dict(project.env),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
