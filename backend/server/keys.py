"""Keys: who the server is, and whose clients it lets in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import zmq

from ..wire import Connection, connection, paths


@dataclass(frozen=True)
class ServerKeys:
    """Z85 keys: the server's pair, and the pair that clients on this machine share through the connection file."""

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str


def load_keys(home: Path) -> ServerKeys:
    """The machine's keys, made on first use; they outlive the server, so that clients need not be told again."""
    path = paths.server_keys(home)
    if not path.is_file():
        pairs = [key.decode() for _ in range(2) for key in zmq.curve_keypair()]
        connection.write_private(path, dict(zip(ServerKeys.__dataclass_fields__, pairs)))
    return ServerKeys(**json.loads(path.read_text(encoding="utf-8")))


def invite(home: Path, address: str) -> Connection:
    """A connection for one client on another machine, with a key pair of its own that is let in from now on."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    file = paths.authorized_keys(home)
    with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as keys:
        keys.write(public + "\n")
    return Connection(address, load_keys(home).server_public, public, secret)


class AllowList:
    """The clients that may connect; `callback` is what pyzmq's authenticator asks at every handshake."""

    def __init__(self, local_key: str, file: Path) -> None:
        self.local_key = local_key
        self._file = file

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this Z85 key may connect. The file is read each time: no restart to add a key."""
        return key.decode("ascii", "replace") in {self.local_key, *self._authorized()}

    def _authorized(self) -> list[str]:
        if not self._file.is_file():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines()
        # Z85 text may hold '#', so a comment is only what follows the 40 characters of the key.
        return [line.strip()[:40] for line in lines if line.strip() and not line.startswith("# ")]
