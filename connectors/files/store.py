"""A folder or object store through fsspec: listing, opening, and its errors by class."""

import glob
import hashlib
import io
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
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
_CLIENTS = ("aiohttp", "botocore", "paramiko", "google", "azure", "requests")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created", "timeModified")
_MARKS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "md5", "checksum", "ino")
_DENIED = re.compile(
    r"access ?denied|forbidden|unauthorized|credential|signature|permission|authentication|\b40[13]\b", re.IGNORECASE
)
_MISSING = re.compile(r"no ?such ?bucket|not ?found|does not exist|\b404\b", re.IGNORECASE)


READ_BYTES = 1 << 20


class _Classified(io.RawIOBase):
    """A file of a store; what its reads raise is the platform's."""

    def __init__(self, raw: Any, guard: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._raw = raw
        self._guard = guard

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        self._raw.seek(offset, whence)
        return self._raw.tell()

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        with self._guard():
            data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            # the bytes are read: how the connection ends is of no interest
            with suppress(Exception):
                self._raw.close()
        super().close()


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


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
            # not one that an earlier read left in this process: its connection may be dead by now
            found, root = url_to_fs(self._url, skip_instance_cache=True, **self._options)
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

    def open(self, where: str, file: FileInfo) -> io.BufferedReader:
        """The raw bytes, seekable where the store is; every read's errors are classified.

        Raises:
            TransientError: it is gone since it was listed, or the connection is. AuthError.
        """
        with self._reading(where, file):
            raw = self._fs.open(self.full_path(file.path), "rb")
        return io.BufferedReader(_Classified(raw, lambda: self._reading(where, file)), READ_BYTES)

    def require_unchanged(self, where: str, file: FileInfo) -> None:
        """After a read. One that was deleted meanwhile was read whole all the same.

        Raises:
            TransientError: the file was written to since it was listed, so what was read may be of two files.
        """
        full = self.full_path(file.path)
        with self.classified(where, f"looking at {file.path} again"):
            self._fs.invalidate_cache(full)
            try:
                now = _info(file.path, self._fs.info(full))
            except FileNotFoundError:
                return
        if not now.looks_like(file):
            raise TransientError(
                where,
                f"{file.path} was written to while it was read ({file.size_bytes:,} bytes, then {now.size_bytes:,})",
                "The next attempt reads it again; set settle, or have files delivered under another name and renamed.",
            )

    def close(self) -> None:
        """Ends the connection of a store that keeps one."""
        client = vars(self).get("_opened", (None,))[0]
        if isinstance(connection := getattr(client, "client", None), _Closable):
            connection.close()

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

    @contextmanager
    def _reading(self, where: str, file: FileInfo) -> Generator[None]:
        """Errors of a file that was listed: whatever is not understood is a connection that was lost."""
        doing = f"reading {file.path}"
        try:
            yield
        except FileNotFoundError as error:
            what = f"{file.path} is gone since it was listed"
            raise TransientError(where, what, "The next attempt reads what is there then.") from error
        except Exception as error:
            if isinstance(error, HeadwaterError | MemoryError):
                raise
            told = self._told(error, doing)
            if isinstance(error, PermissionError) or _DENIED.search(f"{type(error).__name__} {error}"):
                raise AuthError(where, told, "Check what the credentials may read.") from error
            raise TransientError(where, told, "The next attempt goes on after the last file.") from error

    def _by_words(self, where: str, error: Exception, doing: str) -> HeadwaterError:
        """Stores raise their own classes (botocore, aiohttp, paramiko): their words decide."""
        told = self._told(error, doing)
        if _DENIED.search(f"{type(error).__name__} {error}"):
            return AuthError(where, told, "Check connector.options and what the credentials may read.")
        if _MISSING.search(f"{type(error).__name__} {error}"):
            return ConfigError(where, told, "Correct connector.url or path.")
        is_lost = isinstance(error, EOFError | OSError)
        if is_lost or type(error).__module__.split(".")[0] in (
            "aiohttp",
            "botocore",
            "paramiko",
            "google",
            "azure",
            "requests",
        ):
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
