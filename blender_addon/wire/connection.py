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
        letters = re.sub(r"[^A-Za-z0-9_-]", "", found[1])
        letters = letters[: len(letters) - (len(letters) % 4 == 1)]
        data = base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
        if len(data) < 2:
            raise UserError("The pairing code is cut off", CODE_HINT)
        size = 2 + data[1] + 32 * data[0] + 4
        if data[0] not in (1, 3):
            raise UserError("The pairing code was changed on the way, or a newer Kinora made it", CODE_HINT)
        if len(data) < size:
            raise UserError(f"The pairing code is cut off: {len(data)} of its {size} bytes are there", CODE_HINT)
        content, check = data[: size - 4], data[size - 4 : size]
        if hashlib.sha256(content).digest()[:4] != check:
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
        content += hashlib.sha256(content).digest()[:4]
        return CODE + base64.urlsafe_b64encode(content).decode().rstrip("=")

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


def _address(address: Any) -> str:
    """The same when it is tcp://host:port. Raises ValueError."""
    match = ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError("the address is not tcp://host:port")
    return address


def write_private(path: Path, data: dict[str, Any]) -> None:
    """Write JSON that appears whole and is readable by its owner alone."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
