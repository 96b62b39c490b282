"""Connection: where a server is and the keys to it, as a private file, or as a pairing code of one line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import z85
from .errors import UserError

FORMAT = "kinora-connection"
HINT = "start the backend, or choose the connection file of a running one"

#: A pairing code is this and base64url of: 1 or 3 (how many keys follow), the length of host:port, host:port, the keys
#: of 32 bytes (server's, client's public, client's secret), and the first 4 bytes of the SHA-256 of all before.
CODE = "kinora1-"
#: A public key alone in a form that no shell changes: this and base64url of its 32 bytes and 4 of their SHA-256.
KEY_CODE = "kinorakey-"
CODE_HINT = (
    "copy the whole line that 'python -m backend keys new' printed on the backend's computer, and paste it again"
)
ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]{2,60}\]|[A-Za-z0-9_.-]{1,200}):([0-9]{1,5})")
FILE_MAX = 64 * 1024


@dataclass(frozen=True)
class Connection:
    """A server's address and public key, and the key pair by which a client is known to it; keys are Z85 text.

    The client's pair is empty in what a pairing code without one says: it is for a client that has its own.
    `instance` names one run of the server and `pid` its process; both are empty in a file made for another machine.
    """

    address: str  # tcp://host:port
    server_public_key: str
    client_public_key: str
    client_secret_key: str = field(repr=False)
    instance: str = ""
    pid: int = 0

    @property
    def has_client_key(self) -> bool:
        """False when the client's own pair is still to be put in, with `dataclasses.replace`."""
        return bool(self.client_secret_key)

    @classmethod
    def from_code(cls, text: str) -> Connection:
        """The connection that a pairing code says; white space and what stands around it are passed over.

        Raises UserError that tells a code that was cut from one that was changed.
        """
        found = re.search(rf"{CODE}(.*)", text[: 4 * 4096], re.DOTALL | re.IGNORECASE)
        if found is None:
            raise UserError("This is not a pairing code of Kinora", CODE_HINT)
        data = _from_base64(found[1])
        if len(data) < 2:
            raise UserError("The pairing code is cut off", CODE_HINT)
        size = 2 + data[1] + 32 * data[0] + 4
        if data[0] not in (1, 3):
            raise UserError("The pairing code was changed on the way, or a newer Kinora made it", CODE_HINT)
        if len(data) < size:
            raise UserError(f"The pairing code is cut off: {len(data)} of its {size} bytes are there", CODE_HINT)
        content, check = data[: size - 4], data[size - 4 : size]
        if _check(content) != check:
            raise UserError("The pairing code was changed on the way: its checksum does not match", CODE_HINT)
        keys = [content[at : at + 32] for at in range(2 + data[1], len(content), 32)]
        address = "tcp://" + content[2 : 2 + data[1]].decode("utf-8", "replace")
        try:
            return cls(_address(address), *(z85.encode(key) for key in keys), *[""] * (3 - len(keys)))
        except ValueError as error:
            raise UserError(f"The pairing code does not hold an address ({error})", CODE_HINT) from error

    def to_code(self) -> str:
        """One line that `from_code` takes back; with the client's pair when there is one, and then it is a secret."""
        keys = [self.server_public_key]
        if self.has_client_key:
            keys += [self.client_public_key, self.client_secret_key]
        place = self.address.removeprefix("tcp://").encode()
        content = bytes([len(keys), len(place)]) + place + b"".join(z85.decode(key) for key in keys)
        return CODE + _to_base64(content + _check(content))

    @classmethod
    def read(cls, path: Path) -> Connection:
        """The connection in the file `path`. Raises UserError when there is none."""
        try:
            with open(path, encoding="utf-8") as file:
                data: Any = json.loads(file.read(FILE_MAX))
        except FileNotFoundError as error:
            raise UserError("There is no running backend on this machine", HINT) from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"The connection file {path} cannot be read ({error})", HINT) from error
        try:
            if data["format"] != FORMAT:
                raise ValueError("another format")
            keys = [str(data[k]) for k in ("server_public_key", "client_public_key", "client_secret_key")]
            if any(len(z85.decode(k)) != 32 for k in keys):
                raise ValueError("a key is damaged")
            return cls(_address(data["address"]), *keys, str(data.get("instance", "")), int(data.get("pid", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a connection file of Kinora ({error})", HINT) from error

    def write(self, path: Path) -> None:
        """Write the file whole, readable by its owner alone."""
        write_private(path, {"format": FORMAT, **vars(self)})


def code_of_key(public_key: str) -> str:
    """A public key in a form that survives shells and mails; `key_of_code` takes it back."""
    content = z85.decode(public_key)
    return KEY_CODE + _to_base64(content + _check(content))


def key_of_code(text: str) -> str:
    """The Z85 public key that a text says, in Z85 or as `code_of_key` writes it. Raises UserError when it is none."""
    text = text.strip()
    if text.startswith(KEY_CODE):
        data = _from_base64(text[len(KEY_CODE) :])
        if len(data) == 36 and _check(data[:32]) == data[32:]:
            return z85.encode(data[:32])
    elif len(text) == 40 and z85.VALUES.keys() >= set(text):
        return text
    raise UserError(
        f"'{text[:80]}' is not the public key of a client, or it was changed on the way",
        "copy it again in the add-on's preferences, in quotes if it does not begin with kinorakey-",
    )


def is_address(address: Any) -> bool:
    """Whether it is tcp://host:port."""
    match = ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return match is not None and 0 < int(match[2]) < 65536


def _address(address: Any) -> str:
    """The same when it is tcp://host:port. Raises ValueError."""
    if not is_address(address):
        raise ValueError("the address is not tcp://host:port")
    return address


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:4]


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    """Its bytes, whatever does not belong there passed over."""
    letters = re.sub(r"[^A-Za-z0-9_-]", "", text)
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))


def write_private(path: Path, data: dict[str, Any]) -> None:
    """Write JSON that appears whole and is readable by its owner alone."""
    write_whole(path, json.dumps(data, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Write text that appears whole and is readable by its owner alone."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
