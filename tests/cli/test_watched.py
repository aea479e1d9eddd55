"""A watched module ends when its parent does, also where a shell has it ignore SIGINT."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = "http.server 0 --bind 127.0.0.1"


def test_a_module_started_in_the_background_of_a_script_ends_with_its_parent() -> None:
    watched = f"exec {sys.executable} -u -m platform_assets.cli.watched {SERVER}"
    process = subprocess.Popen(
        # what a script's shell does to a command that ends with &
        ["/bin/sh", "-c", f"trap '' INT; {watched}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith(b"Serving HTTP")
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
