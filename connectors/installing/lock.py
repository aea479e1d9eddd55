"""connector.lock: every package of a connector with its hashes, committed beside the source file."""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from packaging.utils import canonicalize_name

from connectors.errors import ConfigError
from connectors.installing.spec import Package
from connectors.installing.uv import Watch, run_uv

_TITLE = "# Packages of a connector, written by `headwater connectors lock`; commit it, do not edit it."
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?(?:==([^\s;\\]+)| *@ *(\S+))", re.MULTILINE)
_COMMIT = re.compile(r"@[0-9a-f]{40}(#|$)")


@dataclass(frozen=True, slots=True)
class Lock:
    """package: what was asked for, with its Python. pins: lines as `uv pip compile --generate-hashes` writes them."""

    package: Package
    pins: str

    @property
    def text(self) -> str:
        package = self.package
        asked = [f"# package: {package.requirement}", f"# python: {package.python}"]
        asked += [f"# requires: {other}" for other in package.requires]
        return "\n".join([_TITLE, *asked, "", self.pins.strip(), ""])

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """Raises ConfigError when it is no lock file."""
        said: dict[str, list[str]] = {}
        head, _, pins = text.partition("\n\n")
        for line in head.splitlines():
            if match := re.match(r"# (package|python|requires): (.+)", line):
                said.setdefault(match[1], []).append(match[2])
        if len(said.get("package", ())) != 1 or len(said.get("python", ())) != 1 or not _PIN.search(pins):
            raise ConfigError(place, "is no lock file of a connector", "Run `headwater connectors lock` again.")
        return cls(Package(said["package"][0], said["python"][0], tuple(said.get("requires", ()))), pins.strip())

    @property
    def versions(self) -> dict[str, str]:
        """Version by normalized name; the reference with its commit for a package from git."""
        return {canonicalize_name(name): version or url for name, version, url in _PIN.findall(self.pins)}

    @property
    def version(self) -> str:
        """The connector's own, as it is shown; empty when its name cannot be told."""
        found = self.versions.get(self.name or "", "")
        return found.rpartition("@")[2][:12] if "git+" in found else found

    @property
    def name(self) -> str | None:
        """The connector's own distribution, normalized."""
        asked = self.package.requirement
        if not asked.startswith("git+"):
            return canonicalize_name(re.split(r"[\s\[=<>!~;@]", asked, maxsplit=1)[0])
        url = asked.rpartition("@")[0] if "@" in asked.rpartition("/")[2] else asked
        return next((name for name, pin in self.versions.items() if pin.startswith(url)), None)

    def files(self, *, own: bool) -> tuple[str, str]:
        """Two requirement files: what has hashes, and git references pinned to a commit, which cannot have any.

        own: of the connector's own distribution alone, else of all others.
        """
        blocks = [block for block in re.split(r"\n(?=\S)", self.pins) if _PIN.match(block)]
        chosen = [block for block in blocks if (canonicalize_name(_PIN.findall(block)[0][0]) == self.name) == own]
        git = [block.splitlines()[0].rstrip(" \\") for block in chosen if " @ git+" in block.splitlines()[0]]
        hashed = [block for block in chosen if " @ git+" not in block.splitlines()[0]]
        return "\n".join(hashed), "\n".join(git)


def make_lock(package: Package, where: str, watch: Watch, previous: Lock | None = None) -> Lock:
    """The packages that the requirement resolves to; pins of `previous` are kept where they still fit.

    Raises: see run_uv; ConfigError as well when a git reference resolved to no commit.
    """
    package = package.with_python()
    with tempfile.TemporaryDirectory(prefix="headwater-lock-") as folder:
        asked, pins = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        asked.write_text("\n".join([package.requirement, *package.requires, ""]), encoding="utf-8")
        if previous is not None:
            pins.write_text(previous.pins + "\n", encoding="utf-8")
        run_uv(
            [
                "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate",
                "--python" if "/" in package.python else "--python-version", package.python,
                "--output-file", str(pins), str(asked),
            ],
            where,
            f"resolving {package.requirement} for Python {package.python}",
            watch,
        )  # fmt: skip
        lock = Lock(package, pins.read_text(encoding="utf-8").strip())
    for name, pin in lock.versions.items():
        if "git+" in pin and not _COMMIT.search(pin):
            raise ConfigError(where, f"{name} resolved to no commit: {pin}", "Name a tag or a commit after @.")
    return lock


def read_lock(path: Path, package: Package, where: str) -> Lock | None:
    """The lock of exactly this package; None when there is no file.

    Raises:
        ConfigError: it is of another requirement, Python or extra requirement, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{path} cannot be read: {error}", "Make it a text file that you may read.") from error
    lock = Lock.parse(text, str(path))
    if package.is_met_by(lock.package):
        return lock
    asked = package if package.python else replace(package, python=lock.package.python)
    pair = [f"{item.requirement} on Python {item.python}" for item in (lock.package, asked)]
    what = f"{path.name} locks {pair[0]}, the source file asks for {pair[1]}"
    if pair[0] == pair[1]:
        what = f"{path.name} was made with other `requires` than the source file has"
    raise ConfigError(where, what, "Run `headwater connectors lock` for this source and commit the file.")


def write_lock(path: Path, lock: Lock) -> None:
    """In one step: a reader sees the old file or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".lock-", delete=False, encoding="utf-8") as file:
        file.write(lock.text)
    new = Path(file.name)
    new.chmod(0o644)  # a source file's own mode
    new.replace(path)
