"""`headwater record <source>`: a source's HTTP traffic into files that tests replay."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from platform_assets.cli import output
from platform_assets.cli.context import reachable, read_settings, token_sessions


def command(
    target: Annotated[str, typer.Argument(help="SOURCE or SOURCE.STREAM.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to; tests/recordings/SOURCE when not given.")
    ] = None,
    pages: Annotated[int | None, typer.Option("--pages", min=1, help="At most so many of each read.")] = None,
) -> None:
    """Record a read from the start and one of what is new. Secrets and columns declared personal are replaced."""
    from connectors.testing.recording import record
    from platform_assets.sources import find_streams

    settings = read_settings()
    spec, streams = find_streams(target, settings.project_root)
    into = folder or settings.project_root / "tests" / "recordings" / spec.source
    with ExitStack() as ends:
        ends.enter_context(reachable(spec, settings))
        sessions = token_sessions(spec, settings, ends)
        for stream in streams:
            reads = record(spec, stream, into, page_limit=pages, connect_shared=sessions)
            requests = output.count(sum(len(read.exchanges) for read in reads), "request")
            rows = " and ".join(f"{read.rows:,}" for read in reads)
            print(f"{spec.source}.{stream.name}: {requests}, {rows} records, in {into / stream.name}.jsonl")
