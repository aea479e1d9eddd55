"""Every benchmark runs, at a size that shows no more than that, and prints one valid line. Nothing is timed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rendering
from benchmarks.__main__ import BENCHMARKS
from platform_assets.settings import PROJECT_ROOT

TINY = {
    "definitions_load": ["--sources", "1", "--streams", "2", "--runs", "1"],
    "small_stream": ["--repeats", "1"],
    "postgres_to_postgres": ["--rows", "200", "--repeats", "1", "--paths", "headwater"],
    "json_records": ["--rows", "200", "--repeats", "1", "--no-peers"],
    "files": ["--rows", "200", "--repeats", "1", "--no-peers"],
    "merge": ["--rows", "200", "--repeats", "1", "--no-peers"],
    "singer": ["--rows", "200", "--repeats", "1", "--no-peers"],
    "airbyte": ["--rows", "200", "--repeats", "1"],
    "volume_detection": ["--seeds", "1"],
    "mart_rollback": ["--rows", "1000", "--repeats", "1"],
    "memory": ["--rows", "100", "--kinds", "csv,singer,airbyte,dlt_source,python,webhook"],
    "webhooks": ["--deliveries", "200", "--connections", "2", "--repeats", "1"],
}


def test_every_benchmark_is_run_by_make_bench_and_tried_here() -> None:
    assert set(TINY) == set(BENCHMARKS)
    assert (PROJECT_ROOT / "docs" / "performance.md").read_text(encoding="utf-8").count(rendering.BEGIN) == 1


@pytest.mark.slow
def test_every_benchmark_prints_one_valid_line_and_the_page_is_rendered_from_them(tmp_path: Path) -> None:
    # all at once: what takes long is the start of their servers
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, arguments in TINY.items()
    }  # fmt: skip
    results = tmp_path / "results"
    results.mkdir()
    for name, process in running.items():
        output, errors = process.communicate()
        assert process.returncode == 0, f"{name}: {errors[-2_000:]}"
        (line,) = output.splitlines()
        told = json.loads(line)
        assert told["benchmark"] == name
        # a path that failed has no seconds, and its note says why
        assert all(path["seconds"] is not None for path in told.get("paths", [])), line
        (results / f"{name}.json").write_text(line, encoding="utf-8")

    page = tmp_path / "performance.md"
    page.write_text(f"before\n{rendering.BEGIN}\nold\n{rendering.END}\nafter\n", encoding="utf-8")
    rendering.render(rendering.read_results(results, tuple(TINY)), tmp_path)

    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert [title for title in rendering.TITLES.values() if title not in text] == []
    assert (tmp_path / "performance.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize("note", ["", "\x1b[31mfatal:\x1b[0m\nno | such host"])
def test_a_peers_last_words_fit_into_a_cell(note: str) -> None:
    assert "|" not in rendering._short(note)
    assert "\n" not in rendering._short(note)
