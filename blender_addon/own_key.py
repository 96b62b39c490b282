"""This computer's own key pair, for backends that were told its public key by `python -m backend keys allow`."""

from __future__ import annotations

import json
from pathlib import Path

import zmq

from .wire import paths, z85
from .wire.connection import write_private
from .wire.errors import UserError


def own_key(home: Path | None = None) -> tuple[str, str]:
    """(public, secret) in Z85, made on first use and kept. Raises UserError when the file is damaged."""
    path = paths.client_key(home)
    if not path.is_file():
        paths.make_private(path.parent)
        public, secret = (key.decode() for key in zmq.curve_keypair())
        write_private(path, {"public": public, "secret": secret})
    try:
        pair = json.loads(path.read_text(encoding="utf-8"))
        public, secret = str(pair["public"]), str(pair["secret"])
        if len(z85.decode(secret)) != 32 or zmq.curve_public(secret.encode()).decode() != public:
            raise ValueError("the two keys do not belong together")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"The key of this computer cannot be read from {path} ({error})",
            "remove the file for a new key, and have that allowed by each backend",
        ) from error
    return public, secret
