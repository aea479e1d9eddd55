"""`headwater webhooks`: receive signed deliveries, see what was not read yet, let old ones and blocked fields go."""

import json
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from platform_assets.cli import output
from platform_assets.cli.context import protect_secrets, read_settings, running_warehouse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.specs import SourceSpec

command = typer.Typer(
    no_args_is_help=True, help="Receive signed deliveries into the inbox; list what is not read; prune; scrub."
)

Names = Annotated[list[str] | None, typer.Argument(help="Sources of kind webhook; without any, all of them.")]


@command.command("serve")
def serve(
    sources: Names = None,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8732,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Deliveries in flight at most; more are answered 503 with Retry-After.")
    ] = 10_000,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say when the inbox connects.")] = False,
) -> None:
    """Receive deliveries at /hooks/SOURCE until SIGTERM or Ctrl-C; /health and /metrics tell how it goes.

    A delivery is answered 200 once it is durable in ops.webhook_inbox, and never before.
    """
    from platform_assets.cli.demo_services import interrupted_by_sigterm
    from platform_assets.webhooks import serve as process
    from platform_assets.webhooks.hooks import hook, webhook_sources
    from platform_assets.webhooks.inbox import Bounds, Inbox

    settings = read_settings()
    specs = webhook_sources(sources or (), settings.project_root)
    for spec in specs:
        protect_secrets(spec)
    hooks = [hook(spec) for spec in specs]
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    with (
        # the server stops in order at a signal, and then raises it again
        suppress(KeyboardInterrupt),
        interrupted_by_sigterm(),
        running_warehouse(settings),
        process.listen(host, port) as listening,
    ):
        address = listening.getsockname()
        place = f"[{address[0]}]:{address[1]}" if ":" in host else f"{address[0]}:{address[1]}"
        for one in hooks:
            secrets = output.count(one.secrets, "secret")
            print(f"receiving http://{place}{one.path} (scheme {one.scheme}, {secrets})", flush=True)
        inbox = Inbox(process.locator(settings), Bounds(deliveries=max_waiting))
        process.serve(hooks, specs, inbox, listening)


@command.command("backlog")
def backlog(
    sources: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """Deliveries in the inbox that their streams have not read yet."""
    import psycopg

    from platform_assets.webhooks.backlog import read_backlog
    from platform_assets.webhooks.hooks import webhook_sources

    settings = read_settings()
    specs = webhook_sources(sources or (), settings.project_root)
    with (
        running_warehouse(settings) as warehouse,
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as session,
    ):
        found = list(read_backlog(session, specs))
    if as_json:
        rows = [
            {
                "source": item.source,
                "stream": item.stream,
                "deliveries": item.deliveries,
                "oldest": item.oldest.isoformat() if item.oldest else None,
            }
            for item in found
        ]
        print(json.dumps(rows, indent=2))
        return
    table = output.table("", "stream", "not read", "oldest (UTC)", right=("not read",))
    for item in found:
        oldest = f"{item.oldest:%Y-%m-%d %H:%M:%S}" if item.oldest else "-"
        table.add_row(f"{item.source}.{item.stream}", f"{item.deliveries:,}", oldest)
    output.console().print(table)


@command.command("prune")
def prune(
    sources: Names = None,
    older_than: Annotated[int, typer.Option(min=1, help="Days since they were stored.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete what is shown.")] = False,
) -> None:
    """Delete old deliveries that every stream of their source has read; what is not read stays, however old.

    Shows what would go; --yes deletes it.
    """
    from datetime import UTC, datetime, timedelta

    import psycopg

    from platform_assets.webhooks.hooks import webhook_sources
    from platform_assets.webhooks.prune import plan_pruning
    from platform_assets.webhooks.prune import prune as delete

    settings = read_settings()
    specs = webhook_sources(sources or (), settings.project_root)
    before = datetime.now(UTC) - timedelta(days=older_than)
    with (
        running_warehouse(settings) as warehouse,
        psycopg.connect(warehouse.admin_dsn, autocommit=True) as session,
    ):
        plans = [plan_pruning(session, spec, before) for spec in specs]
        for plan in plans:
            since = f", stored since {plan.oldest:%Y-%m-%d}" if plan.oldest else ""
            print(f"{plan.source}: {plan.deliveries:,} read and older than {older_than} days{since}")
            if plan.unread:
                print(f"{plan.source}: {plan.unread:,} as old stay, because {plan.slowest} has not read them")
            if yes:
                print(f"{plan.source}: {delete(session, plan):,} deleted")
        if not yes and any(plan.deliveries for plan in plans):
            print("This was the plan; give --yes to delete them.")


@command.command("scrub")
def scrub(sources: Names = None) -> None:
    """Take fields out of the deliveries in the inbox that every stream of their event blocks by now.

    Receivers store no such field; this is for deliveries that came before the block. They cannot be had back.
    """
    from platform_assets.webhooks.hooks import webhook_sources

    scrub_inbox(webhook_sources(sources or (), read_settings().project_root))


def scrub_inbox(specs: "Iterable[SourceSpec]") -> None:
    """Does it, and says of how many deliveries something was taken."""
    import psycopg

    from platform_assets.webhooks.scrub import scrub

    with (
        running_warehouse(read_settings()) as warehouse,
        psycopg.connect(warehouse.admin_dsn, autocommit=True) as session,
    ):
        for spec in specs:
            print(f"{spec.source}: deliveries in the inbox that lost blocked fields: {scrub(session, spec):,}")
