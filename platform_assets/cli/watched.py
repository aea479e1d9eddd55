"""`python -m platform_assets.cli.watched MODULE [WORDS]`: run a module that ends when its parent does.

When standard input closes, because the parent closed it or was killed, this process interrupts itself, as Ctrl-C would.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    # a shell that starts jobs with `&` from a script has them ignore SIGINT, and so would this process and its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    # the current folder stays importable, as with `python -m`
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch() -> None:
    # unbuffered: a thread that waits inside a buffered reader aborts the interpreter's end
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
