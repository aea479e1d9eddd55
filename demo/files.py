"""The weather station's drop folder: one gzipped CSV a day, appearing as days are released."""

import gzip
import os
from pathlib import Path

from demo.dataset import read_weather
from demo.release import Release


def publish_weather(folder: Path, release: Release) -> list[Path]:
    """Make the folder hold exactly the released days; files that are already there are left untouched.

    Returns:
        The files in the folder, oldest first: `weather_2013-01-05.csv.gz` and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: list[Path] = []
    for weather in read_weather():
        if not release.shows(weather.day):
            continue
        path = folder / f"weather_{weather.day.isoformat()}.csv.gz"
        wanted.append(path)
        if path.exists():
            continue
        # written beside the folder's own pattern and renamed: a reader never meets half a file
        fresh = folder / f".{path.name}.{os.getpid()}"
        fresh.write_bytes(gzip.compress(weather.text.encode(), mtime=0))
        fresh.replace(path)
    for path in set(folder.glob("weather_*.csv.gz")) - set(wanted):
        path.unlink()
    return wanted
