"""An SFTP server on loopback that serves one folder: paramiko's own server side."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# not a package of every installation: Any
paramiko: Any = import_module("paramiko")
USER, PASSWORD = "reader", "s3cret-sftp"


class _Login(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> Any:
        is_known = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> Any:
        return paramiko.OPEN_SUCCEEDED


class _Opened(paramiko.SFTPHandle):
    readfile: Any

    def stat(self) -> Any:
        return _described(Path(self.readfile.name))


def _described(path: Path) -> Any:
    return paramiko.SFTPAttributes.from_stat(path.stat(), path.name)


def _listed(folder: Path) -> list[Any]:
    return [_described(path) for path in folder.iterdir()]


def _opened(path: Path) -> _Opened:
    handle = _Opened(0)
    handle.readfile = path.open("rb")
    return handle


class _Folder(paramiko.SFTPServerInterface):
    """Read only; what fails is told as the protocol tells it."""

    root: Path

    def _told(self, path: str, find: Callable[[Path], Any]) -> Any:
        try:
            return find(self.root / path.lstrip("/"))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def list_folder(self, path: str) -> Any:
        return self._told(path, _listed)

    def stat(self, path: str) -> Any:
        return self._told(path, _described)

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        return self._told(path, _opened)


@dataclass
class SftpServer:
    port: int
    transports: list[Any]

    def drop_connections(self) -> None:
        """Ends every connection there is, as a server that restarts does."""
        for transport in self.transports:
            transport.close()


@contextmanager
def serving(folder: Path) -> Generator[SftpServer]:
    """Every connection is served in a thread of paramiko's until the end."""
    key = paramiko.RSAKey.generate(2048)
    listener = socket.create_server(("127.0.0.1", 0))
    server = SftpServer(listener.getsockname()[1], [])

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, type("Folder", (_Folder,), {"root": folder}))
            server.transports.append(transport)
            # in its own thread; a client that is refused ends its transport alone
            transport.start_server(threading.Event(), _Login())

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        server.drop_connections()
