"""A folder or object store through fsspec: listing, opening, and its errors by class."""

import glob
import hashlib
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from connectors.errors import AuthError, ConfigError, HeadwaterError, SourceError, TransientError
from connectors.files.seen import FileInfo
from connectors.secrets import mask

_PACKAGES: Mapping[str, str] = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "http": "aiohttp",
    "https": "aiohttp",
}
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created", "timeModified")
_MARKS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "md5", "checksum", "ino")
_DENIED = re.compile(
    r"access ?denied|forbidden|unauthorized|credential|signature|permission|authentication|\b40[13]\b", re.IGNORECASE
)
_MISSING = re.compile(r"no ?such ?bucket|not ?found|does not exist|\b404\b", re.IGNORECASE)


class Store:
    """One place with files. Paths are relative to the connector's url, with forward slashes."""

    def __init__(self, where: str, url: str, options: Mapping[str, str], secrets: Sequence[str]) -> None:
        """Raises ConfigError when no installed library serves the URL's scheme; touches no network."""
        from fsspec.core import split_protocol
        from fsspec.registry import get_filesystem_class

        self._where = where
        self._url = url if "://" in url else str(Path(url).absolute())
        self._options = dict(options)
        self._secrets = (*secrets, *filter(None, (urlsplit(url).password,)))
        self.place = _without_credentials(url)
        scheme = split_protocol(self._url)[0] or "file"
        try:
            get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            hint = f"Install {_PACKAGES[scheme]}." if scheme in _PACKAGES else "Correct connector.url."
            told = mask(next(iter(str(error).splitlines()), ""), self._secrets)
            raise ConfigError(where, f"cannot open {self.place}: {told}", hint) from error

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The filesystem, and the root's path in it; some stores connect here."""
        from fsspec.core import url_to_fs

        try:
            found, root = url_to_fs(self._url, **self._options)
        except TypeError as error:
            told = mask(str(error), self._secrets)
            raise ConfigError(self._where, f"cannot open {self.place}: {told}", "Correct connector.options.") from error
        return found, str(root).rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    def list(self, where: str, pattern: str) -> list[FileInfo]:
        """The files that match, oldest first; hidden ones and folders are left out.

        Raises:
            ConfigError: the folder, or a file named without wildcards, does not exist.
        """
        with self.classified(where, f"listing {pattern}"):
            self._fs.invalidate_cache()
            full = f"{self._escaped_root}/{pattern}"
            if not glob.has_magic(pattern):
                found = {f"{self._root}/{pattern}": self._fs.info(f"{self._root}/{pattern}")}
            else:
                found = self._fs.glob(full, detail=True)
                if not found and not self._fs.isdir(self._root):
                    raise FileNotFoundError(self._root)
        infos = [
            _info(self._relative(path), details)
            for path, details in found.items()
            if details.get("type", "file") == "file" and not path.rsplit("/", 1)[-1].startswith(".")
        ]
        return sorted(infos, key=lambda info: info.key)

    def open(self, file: FileInfo) -> IO[bytes]:
        """The raw bytes, seekable where the store is."""
        return self._fs.open(self.full_path(file.path), "rb")

    def full_path(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def classified(self, where: str, doing: str) -> Generator[None]:
        """Errors of the store as the platform's."""
        try:
            yield
        except HeadwaterError:
            raise
        except FileNotFoundError as error:
            raise ConfigError(
                where,
                f"nothing at {mask(str(error.filename or error), self._secrets)} ({self.place}) while {doing}",
                "Correct path, or connector.url and what it refers to.",
            ) from error
        except PermissionError as error:
            raise AuthError(where, self._told(error, doing), "Check what the credentials may read.") from error
        except (TimeoutError, ConnectionError) as error:
            raise TransientError(
                where, self._told(error, doing), "The next attempt goes on after the last file."
            ) from error
        except Exception as error:
            if isinstance(error, MemoryError | AssertionError):
                raise
            raise self._by_words(where, error, doing) from error

    def _by_words(self, where: str, error: Exception, doing: str) -> HeadwaterError:
        """Stores raise their own classes (botocore, aiohttp, paramiko): their words decide."""
        told = self._told(error, doing)
        if _DENIED.search(f"{type(error).__name__} {error}"):
            return AuthError(where, told, "Check connector.options and what the credentials may read.")
        if _MISSING.search(f"{type(error).__name__} {error}"):
            return ConfigError(where, told, "Correct connector.url or path.")
        if type(error).__module__.split(".")[0] in ("aiohttp", "botocore", "paramiko", "google", "azure", "requests"):
            return TransientError(where, told, "The next attempt goes on after the last file.")
        return SourceError(where, told, "Look at the file there; what was sealed before it stays.")

    def _told(self, error: Exception, doing: str) -> str:
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        return f"{mask(text[:300], self._secrets)} while {doing} at {self.place}"

    def _relative(self, path: str) -> str:
        return path[len(self._root) :].lstrip("/") if path.startswith(self._root) else path

    @property
    def _escaped_root(self) -> str:
        return glob.escape(self._root)


def _info(path: str, details: Mapping[str, Any]) -> FileInfo:
    modified = next((_nanoseconds(details[name]) for name in _TIMES if details.get(name) is not None), 0)
    size = int(details.get("size") or 0)
    marks = "|".join(str(details[name]) for name in _MARKS if details.get(name))
    text = f"{size}|{modified}|{marks}"
    return FileInfo(path, size, modified, hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


def _nanoseconds(value: Any) -> int:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1_000_000) * 1_000
    if isinstance(value, int | float):
        return int(value * 1_000_000) * 1_000
    try:
        return _nanoseconds(datetime.fromisoformat(str(value)))
    except ValueError:
        return 0


def _without_credentials(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
