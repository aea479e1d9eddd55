"""`headwater`: what people and scripts do from a terminal.

`main()` turns every outcome into an exit code (docs/cli.md) and every error into at most six lines on stderr.
Commands are modules of this package, imported only when they are the one that was asked for.
"""

import os
import sys
from collections.abc import Sequence

from connectors.errors import HeadwaterError

UNEXPECTED = 1
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or the exit code of the error's class (connectors.errors); 1 for an unexpected error, 2 for a wrong
        command line, 130 after Ctrl-C.
    """
    from platform_assets.cli import output

    words, is_debug = _take_debug(list(sys.argv[1:] if arguments is None else arguments))
    output.mask_streams()
    output.set_debug(is_debug=is_debug)
    try:
        from platform_assets.cli.commands import build

        build(words)(args=words, prog_name="headwater")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        output.note("stopped by Ctrl-C")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader, e.g. `| head`, has seen enough; Python's own flush at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except HeadwaterError as error:
        output.debug_traceback(error)
        output.failure(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last place where one can become a line instead of a traceback
        output.debug_traceback(error)
        output.unexpected(error)
        return UNEXPECTED
    return 0


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """The command line without `--debug`, wherever it stood, and whether it did; after `dbt` it is dbt's own."""
    own = words.index("dbt") if "dbt" in words else len(words)
    kept = [word for word in words[:own] if word != "--debug"]
    return kept + words[own:], len(kept) < own
