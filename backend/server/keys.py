"""Keys: who the server is, and whose clients it lets in; see docs/security.md."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from ..wire import Connection, UserError, connection, paths, z85

#: A line of authorized_keys: the key, and after white space its client's name and the day it was let in. Any other
#: line is a comment; no key begins with '#'.
LINE = re.compile(r"(\S{40})(?:\s+(\S+))?(?:\s+(\d{4}-\d\d-\d\d))?\s*")
NAME = re.compile(r"[^\W_][\w.@-]{0,63}")


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
    try:
        keys = ServerKeys(**json.loads(path.read_text(encoding="utf-8")))
        for public, secret in ((keys.server_public, keys.server_secret), (keys.client_public, keys.client_secret)):
            if zmq.curve_public(secret.encode()).decode() != public:
                raise ValueError("two keys do not belong together")
    except (OSError, ValueError, TypeError, AttributeError, zmq.ZMQError) as error:
        raise UserError(
            f"The server's keys in {path} cannot be used ({error})",
            "put back a copy of the file, or remove it for new keys and pair every client again",
        ) from error
    return keys


@dataclass(frozen=True)
class Client:
    """A client that may connect. `added` is a day (2026-11-21) or empty, `seen` Unix seconds, None for never."""

    key: str
    name: str = ""
    added: str = ""
    seen: float | None = None


class AuthorizedKeys:
    """The clients of other machines, in a file that may be edited by hand; comments stay where they are."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.file = paths.authorized_keys(home)

    def clients(self) -> list[Client]:
        """Everyone who is let in, in the order of the file; a line that holds no key lets nobody in."""
        return [Client(c.key, c.name, c.added, self._seen(c.key)) for c in map(_client, self._lines()) if c is not None]

    def keys(self) -> frozenset[str]:
        """Their keys."""
        return frozenset(c.key for c in map(_client, self._lines()) if c is not None)

    def allow(self, key: str, name: str) -> None:
        """Let a client in from now on. Raises UserError when it is in already, or the key or the name is none."""
        if not _is_key(key):
            raise UserError(f"'{key[:60]}' is not a public key", "it has 40 characters; the add-on shows its own")
        if not NAME.fullmatch(name):
            raise UserError(
                f"'{name[:60]}' is not a name", "use letters, digits and . - _ @ and begin with a letter or a digit"
            )
        for client in self.clients():
            if client.key == key:
                raise UserError(f"This key is let in already, as '{client.name}'", "revoke it first for another name")
            if client.name == name:
                raise UserError(f"There is a client '{name}' already", "choose another name, or revoke that one first")
        self._write([*self._lines(), f"{key} {name} {time.strftime('%Y-%m-%d')}"])

    def revoke(self, who: str) -> Client:
        """Let a client in no more, by its name or its key. Raises UserError when there is none."""
        found = next((c for c in self.clients() if who in (c.name, c.key)), None)
        if found is None or not who:
            raise UserError(f"There is no client '{who}'", "'python -m backend keys list' shows who is let in")
        self._write([line for line in self._lines() if (c := _client(line)) is None or c.key != found.key])
        self._mark(found.key).unlink(missing_ok=True)
        return found

    def saw(self, key: str) -> None:
        """Remember when a client came: the time of a file."""
        with contextlib.suppress(OSError):  # of no weight beside the connection itself
            paths.make_private(self._mark(key).parent)
            self._mark(key).touch(mode=0o600)

    def _seen(self, key: str) -> float | None:
        try:
            return self._mark(key).stat().st_mtime
        except OSError:
            return None

    def _mark(self, key: str) -> Path:
        return paths.seen_folder(self._home) / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _lines(self) -> list[str]:
        try:
            return self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _write(self, lines: list[str]) -> None:
        connection.write_whole(self.file, "".join(line + "\n" for line in lines))


class AllowList:
    """Who may connect, and stay: this machine's clients and those in `authorized_keys`, as the file stands now.

    `refused` counts the handshakes with other keys.
    """

    def __init__(self, local_key: str, home: Path) -> None:
        self.local_key, self.refused = local_key, 0
        self._authorized = AuthorizedKeys(home)
        self._read: tuple[int, ...] | None = None  # what told the file that was read from another
        self._keys: frozenset[str] = frozenset()

    def callback(self, domain: str, key: bytes) -> bool:
        """What pyzmq's authenticator asks at every handshake: whether the client with this Z85 key may connect."""
        text = key.decode("ascii", "replace")
        allowed = self.allows(text)
        if allowed and text != self.local_key:
            self._authorized.saw(text)
        self.refused += not allowed
        return allowed

    def allows(self, key: str) -> bool:
        """Whether a client may be here. Cheap: the file is read only when it changed. Unreadable, it allows nobody."""
        try:
            about = os.stat(self._authorized.file)
            now = (about.st_mtime_ns, about.st_size, about.st_ino)
            if now != self._read:
                self._keys = self._authorized.keys()
                self._read = now
        except OSError:
            self._keys, self._read = frozenset(), None
        return key == self.local_key or key in self._keys


def new_client(home: Path, name: str, address: str) -> Connection:
    """A connection for one client on another machine, with a key pair of its own that is let in from now on."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    it = Connection(address, load_keys(home).server_public, public, secret)
    AuthorizedKeys(home).allow(public, name)
    return it


def _client(line: str) -> Client | None:
    """Who a line of the file lets in; None when it is a comment, blank or damaged."""
    match = LINE.fullmatch(line.strip())
    if match is None or not _is_key(match[1]):
        return None
    return Client(match[1], match[2] or "", match[3] or "")


def _is_key(text: str) -> bool:
    try:
        return len(z85.decode(text)) == 32
    except ValueError:
        return False
