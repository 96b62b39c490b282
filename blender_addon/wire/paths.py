"""Where Kinora keeps its data on this machine: one folder for each user, the same for the add-on and the backend."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import UserError


def home() -> Path:
    """The data folder: KINORA_HOME when set, else the platform's place for a user's application data."""
    chosen = os.environ.get("KINORA_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "Kinora"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Kinora"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "kinora"


def connection_file(root: Path | None = None) -> Path:
    """Written by a running server: its address and the keys of a client on this machine."""
    return (root or home()) / "connection.json"


def server_keys(root: Path | None = None) -> Path:
    """The server's key pair and that of the clients on this machine; kept across restarts."""
    return (root or home()) / "keys.json"


def client_key(root: Path | None = None) -> Path:
    """The key pair of this computer as a client of backends elsewhere that were told its public key."""
    return (root or home()) / "client_key.json"


def authorized_keys(root: Path | None = None) -> Path:
    """Public keys of clients on other machines that may connect, with their names; see docs/security.md."""
    return (root or home()) / "authorized_keys"


def seen_folder(root: Path | None = None) -> Path:
    """When each client on another machine came last: the times of files named by a hash of its key."""
    return (root or home()) / "seen"


def jobs_database(root: Path | None = None) -> Path:
    """The server's jobs; whoever has it open is the running server."""
    return (root or home()) / "jobs.db"


def jobs_folder(root: Path | None = None) -> Path:
    """One folder for each job: its log, and the capture when it is done."""
    return (root or home()) / "jobs"


def trash_folder(root: Path | None = None) -> Path:
    """What is being removed: moved here at once, deleted a moment later."""
    return (root or home()) / "trash"


def uploads_folder(root: Path | None = None) -> Path:
    """Footage that clients on other machines sent, named by its SHA-256."""
    return (root or home()) / "uploads"


def proofs_folder(root: Path | None = None) -> Path:
    """Files with nonces by which a client proves that it sees the server's disk."""
    return (root or home()) / "proofs"


def cache_folder(root: Path | None = None) -> Path:
    """Results of stages that later jobs may need again; it may be deleted at any time."""
    return (root or home()) / "cache"


def logs_folder(root: Path | None = None) -> Path:
    """Logs of the server and of the command line."""
    return (root or home()) / "logs"


def known_backends(root: Path | None = None) -> Path:
    """Connection files of the backends on other machines that were paired with this one, by name."""
    return (root or home()) / "backends"


def orders_folder(root: Path | None = None) -> Path:
    """What this machine asked of which backend, one file an order, so that a job is found again."""
    return (root or home()) / "orders"


def backend_pointer(root: Path | None = None) -> Path:
    """`{"python": ..., "repo": ...}`: which interpreter runs the backend, and in which checkout."""
    return (root or home()) / "backend.json"


def make_private(folder: Path) -> Path:
    """The folder, made if need be, that only its owner can look into. Raises UserError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"The data folder {folder} cannot be made ({error.strerror})",
            "set the environment variable KINORA_HOME to a folder that can be written",
        ) from error
    return folder
