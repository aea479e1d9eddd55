"""`headwater tap inspect`: between a tap and its target, or behind it: what the messages say."""

import sys

import typer

command = typer.Typer(no_args_is_help=True, help="Look at the messages of a Singer tap.")


@command.callback()
def tap() -> None:
    """Look at the messages of a Singer tap."""


@command.command()
def inspect() -> None:
    """Pass standard input on unchanged; counts, sizes, fields, states and anomalies go to standard error.

    `tap-x --config config.json --catalog catalog.json | headwater tap inspect > messages.jsonl`
    """
    from connectors.singer.inspect import Inspector

    inspector = Inspector()
    to = sys.stdout.buffer
    is_open = True
    try:
        for line in sys.stdin.buffer:
            if is_open:
                try:
                    to.write(line)
                    to.flush()
                except BrokenPipeError:
                    # whoever reads behind us has enough; the tap is told so by the same means
                    is_open = False
                    break
            inspector.take(line)
    except KeyboardInterrupt:
        pass
    for said in inspector.report():
        print(said, file=sys.stderr)
    if not is_open:
        # the interpreter's own flush at the end would fail again
        sys.stdout = None
