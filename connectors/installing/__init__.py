"""Connectors that are programs of others: each in a hash-locked virtual environment of its own. See docs/installing.md.

`command_of(spec, where)` gives the command line of a source's program, and installs it when it is not there yet.
"""

from connectors.installing.command import command_of, is_installed
from connectors.installing.lock import Lock, make_lock, read_lock, write_lock
from connectors.installing.spec import InstalledConnectorSpec, Package
from connectors.installing.uv import Watch
from connectors.installing.venv import cache_folder, install, installed

__all__ = [
    "InstalledConnectorSpec",
    "Lock",
    "Package",
    "Watch",
    "cache_folder",
    "command_of",
    "install",
    "installed",
    "is_installed",
    "make_lock",
    "read_lock",
    "write_lock",
]
