"""`make bench`: every benchmark, one after the other; then the table and the plot of docs/performance.md.

    python -m benchmarks [--full] [--only files,merge] [--no-peers] [--no-docs]

Each result line is kept under `.headwater/bench/results`; the page is rendered from what is there, so one benchmark can
be run alone. --full takes the sizes of the claims, about an hour; without it all of them end in a quarter of an hour.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks import rendering
from benchmarks.support import bench_home, progress
from platform_assets.settings import PROJECT_ROOT

# arguments: the sizes of `make bench`, then those of the claims
BENCHMARKS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "definitions_load": ((), ()),
    "small_stream": ((), ()),
    "postgres_to_postgres": (("--rows", "300000"), ("--rows", "6000000")),
    "json_records": ((), ("--rows", "200000")),
    "files": ((), ("--rows", "1000000")),
    "merge": ((), ("--rows", "1000000")),
    "singer": (("--repeats", "1"), ()),
    "airbyte": (("--repeats", "1"), ()),
    "volume_detection": ((), ()),
    "mart_rollback": (("--rows", "1000000"), ()),
    "memory": ((), ("--rows", "1000000")),
    "webhooks": (("--deliveries", "20000"), ()),
}


def run(name: str, *, is_full: bool, has_peers: bool) -> bool:
    """One benchmark in a process of its own; its line is kept. False when it failed."""
    usual, full = BENCHMARKS[name]
    arguments = [*(full if is_full else usual)]
    if not has_peers:
        arguments += {"postgres_to_postgres": ["--paths", "headwater"]}.get(
            name, ["--no-peers"] if name in ("json_records", "files", "merge", "singer") else []
        )
    progress(f"== {name} {' '.join(arguments)}")
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=False)
    line = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not line[0].startswith("{"):
        progress(f"{name} failed with status {done.returncode}")
        return False
    print(line[0], flush=True)
    folder = bench_home() / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(line[0] + "\n", encoding="utf-8")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default=",".join(BENCHMARKS))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-docs", action="store_true")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    failed = [name for name in chosen if not run(name, is_full=options.full, has_peers=not options.no_peers)]
    if not options.no_docs:
        results = rendering.read_results(bench_home() / "results", tuple(BENCHMARKS))
        rendering.render(results, PROJECT_ROOT / "docs")
        progress("docs/performance.md and docs/performance.svg are rendered")
    if failed:
        progress(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
