"""Take the pictures of docs/images from a running UI with headless Chromium.

    .venv/bin/headwater demo --days 4       # a few times, with more days each, so that the plots have something to say
    .venv/bin/headwater up &
    .venv/bin/python scripts/screenshots.py http://127.0.0.1:3000

Needs Chromium on PATH, and `websockets` and `pillow`, which .venv has. A page counts as drawn when the texts that must
be on it are, and nothing has moved for a second.
"""

import argparse
import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from websockets.sync.client import ClientConnection, connect

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH = 1600
# the graph from top to bottom and without the navigation: its names are readable then
PREFERENCES = """localStorage.setItem('asset-graph-direction', '"vertical"');
    if (location.pathname == '/asset-groups') localStorage.setItem('dagster-nav-collapsed', 'true');
    else localStorage.removeItem('dagster-nav-collapsed');"""
PATIENCE_SECONDS = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
)
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on RepositoryLocation { repositories { name assetGroups { groupName } } } } } } }
    runsOrError(filter: {statuses: [SUCCESS]}, limit: 20) { ... on Runs {
    results { runId assetSelection { path } } } } }"""
SHOWN = "document.body.innerText"
PLACE = """(() => {{ const shown = [...document.querySelectorAll('body *')].filter(
        e => e.innerText && e.innerText.trim() === {text} && e.getBoundingClientRect().width > 0);
    if (!shown.length) return null;
    const found = shown[shown.length - 1]; found.scrollIntoView({{block: 'nearest'}});
    const r = found.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
BOUNDS = """(() => {{ const r = [...document.querySelectorAll('{selector}')].map(e => e.getBoundingClientRect())
        .filter(r => r.width > 0);
    const x = Math.min(...r.map(r => r.left)), y = Math.min(...r.map(r => r.top));
    return [x, y, Math.max(...r.map(r => r.right)) - x, Math.max(...r.map(r => r.bottom)) - y]; }})()"""
MARGIN = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """texts: must stand on the page. clicks: on these texts, afterwards. part: CSS selector of what is shown."""

    name: str
    path: str
    height: int
    texts: tuple[str, ...]
    clicks: tuple[str, ...] = ()
    part: str | None = None


class Page:
    """One tab, driven by the browser's own protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=PATIENCE_SECONDS))).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def run(self, script: str) -> Any:
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, text: str) -> None:
        place = self.run(PLACE.format(text=json.dumps(text)))
        if place is None:
            raise LookupError(f"nothing to click on: {text}")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def image(self, part: str | None = None) -> bytes:
        clip: dict[str, Any] = {}
        if part is not None:
            x, y, width, height = self.run(BOUNDS.format(selector=part))
            x, y, width, height = x - MARGIN, y - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN
            clip = {"clip": {"x": x, "y": y, "width": width, "height": height, "scale": WIDTH / width}}
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png", **clip)["data"])

    def wait_for(self, texts: tuple[str, ...]) -> None:
        """Raises TimeoutError when a text does not turn up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := [text for text in texts if text not in (self.run(SHOWN) or "")]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not on the page: {', '.join(missing)}")
            time.sleep(0.3)

    def settled_image(self, part: str | None) -> bytes:
        """The picture that has not changed for a second."""
        deadline, before = time.monotonic() + PATIENCE_SECONDS, b""
        while (now := self.image(part)) != before and time.monotonic() < deadline:
            before = now
            time.sleep(1.0)
        return now


def program_path() -> str | None:
    """Of Chromium; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Generator[Page]:
    program = program_path()
    if program is None:
        raise SystemExit(f"none of {', '.join(NAMES)} is on PATH: install Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(  # noqa: S603  the browser found above
            [program, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (port_file.exists() and port_file.read_text().count("\n")):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{program} did not open its debugging port")
                time.sleep(0.1)
            port = port_file.read_text().splitlines()[0]
            found = httpx.get(f"http://127.0.0.1:{port}/json").json()
            target = next(item for item in found if item["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                page = Page(socket)
                page.ask("Page.enable")
                page.ask("Page.addScriptToEvaluateOnNewDocument", source=PREFERENCES)
                yield page
        finally:
            process.terminate()
            process.wait(30)


def pictures(url: str) -> list[Picture]:
    """What is taken, with the groups and the runs that this UI has."""
    data = httpx.post(f"{url}/graphql", json={"query": LOCATIONS}, timeout=60).json()["data"]
    groups = [
        f"global%40global%3A{group['groupName']}"
        for entry in data["workspaceOrError"]["locationEntries"]
        for repository in entry["locationOrLoadError"]["repositories"]
        for group in repository["assetGroups"]
    ]
    streams = [run["runId"] for run in data["runsOrError"]["results"] if _is_ingest(run)]
    flights = "/assets/nyc_flights/flights"
    return [
        Picture(
            "asset-graph",
            f"/asset-groups?expanded={','.join(groups)}",
            1200,
            ("Materialize all",),
            part="foreignObject",
        ),
        Picture("stream-metadata", f"{flights}?view=events", 1250, ("rows_loaded", "windows")),
        Picture("stream", flights, 1250, ("Row count", "Metadata"), ("Columns", "Plots")),
        Picture(
            "stream-checks", f"{flights}?view=checks&checkDetail=volume_anomaly", 1000, ("Latest execution", "Plots")
        ),
        Picture("run", f"/runs/{streams[0]}", 1100, ("nyc_flights__flights", "STEP_SUCCESS")),
    ]


def _is_ingest(run: Any) -> bool:
    return any(key["path"] == ["nyc_flights", "flights"] for key in run["assetSelection"] or [])


def take(page: Page, url: str, picture: Picture) -> Path:
    page.ask(
        "Emulation.setDeviceMetricsOverride",
        width=WIDTH, height=picture.height, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    page.ask("Page.navigate", url=f"{url}{picture.path}")
    page.wait_for(picture.texts)
    page.settled_image(None)
    for text in picture.clicks:
        page.click(text)
        page.settled_image(None)
    path = IMAGES / f"{picture.name}.png"
    with Image.open(io.BytesIO(page.settled_image(picture.part))) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of docs/images.")
    parser.add_argument("url", help="of the running UI, e.g. http://127.0.0.1:3000")
    parser.add_argument("names", nargs="*", help="of the pictures; all when none is given")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with browser() as page:
        for picture in pictures(options.url):
            if not options.names or picture.name in options.names:
                path = take(page, options.url, picture)
                print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
