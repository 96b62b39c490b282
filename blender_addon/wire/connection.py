"""Connection: where a server is and the keys to it, as a file that only its owner can read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError

FORMAT = "kinora-connection"
HINT = "start the backend, or choose the connection file of a running one"


@dataclass(frozen=True)
class Connection:
    """A server's address and public key, and the key pair by which a client is known to it; keys are Z85 text.

    `instance` names one run of the server and `pid` its process; both are empty in a file made for another machine.
    """

    address: str  # tcp://host:port
    server_public_key: str
    client_public_key: str
    client_secret_key: str = field(repr=False)
    instance: str = ""
    pid: int = 0

    @classmethod
    def read(cls, path: Path) -> Connection:
        """The connection in the file `path`. Raises UserError when there is none."""
        try:
            data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError("There is no running backend on this machine", HINT) from error
        except (OSError, ValueError) as error:
            raise UserError(f"The connection file {path} cannot be read ({error})", HINT) from error
        try:
            if data["format"] != FORMAT:
                raise ValueError("another format")
            keys = [str(data[k]) for k in ("server_public_key", "client_public_key", "client_secret_key")]
            if any(len(k) != 40 or not k.isascii() for k in keys):
                raise ValueError("a key is damaged")
            return cls(str(data["address"]), *keys, str(data.get("instance", "")), int(data.get("pid", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a connection file of Kinora ({error})", HINT) from error

    def write(self, path: Path) -> None:
        """Write the file whole, readable by its owner alone."""
        write_private(path, {"format": FORMAT, **vars(self)})


def write_private(path: Path, data: dict[str, Any]) -> None:
    """Write JSON that appears whole and is readable by its owner alone."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
