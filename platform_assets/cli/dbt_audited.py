"""The process behind `headwater dbt build`: dbt's build, without what stands on a failed blocking check of a stream.

What a stream's checks said is in the ledger, whoever ran its syncs: Dagster need not be there.
"""

import sys
from collections.abc import Iterator, Sequence

from click import ClickException

from connectors.errors import ConfigError, HeadwaterError
from connectors.specs import SourceSpec, StreamSpec
from platform_assets.checks import checks_of
from platform_assets.checks.standing import failing_checks
from platform_assets.dbt.audited import main
from platform_assets.dbt.blocked import FailedCheck
from platform_assets.dbt.graph import Key
from platform_assets.settings import load_settings
from platform_assets.sources import read_source_file, source_paths
from platform_assets.warehouse import ensure_warehouse


def failed_checks(keys: Sequence[Key]) -> dict[Key, list[FailedCheck]]:
    """Blocking checks that these streams fail now; nothing of a key that is no stream's.

    Raises:
        LoaderError: the warehouse did not answer.
    """
    streams = {(source.source, stream.name): (source, stream) for source, stream in _streams()}
    dsn = ensure_warehouse(load_settings()).loader_dsn
    found: dict[Key, list[FailedCheck]] = {}
    for key in keys:
        source, stream = streams.get((key[0], key[-1]), (None, None))
        if source is None or stream is None:
            continue
        blocking = [check for check in checks_of(stream, source.source) if check.blocking]
        windows: dict[str, list[FailedCheck]] = {}
        for one in failing_checks(dsn, source, stream, blocking):
            start = f"window of {one.window_start:%Y-%m-%d %H:%M}" if one.window_start else ""
            windows.setdefault(one.check, []).append(FailedCheck(key, one.check, one.at, start))
        found[key] = [_one(failed) for failed in windows.values()]
    return found


def _one(windows: Sequence[FailedCheck]) -> FailedCheck:
    """Of one check over its windows, the newest first."""
    if len(windows) == 1:
        return windows[0]
    newest = windows[0]
    return FailedCheck(newest.asset, newest.name, newest.at, f"{newest.note} and {len(windows) - 1} more")


def _streams() -> Iterator[tuple[SourceSpec, StreamSpec]]:
    """Of a source file that is broken none: it stops no mart, but what its checks said is not known."""
    for path in source_paths():
        try:
            for source in read_source_file(path):
                for stream in source.streams:
                    yield source, stream
        except ConfigError as error:
            sys.stderr.write(f"the checks of this file hold nothing back: {str(error).splitlines()[0]}\n")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:], failed_checks))
    except ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
