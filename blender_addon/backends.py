"""Backends on other machines that this one was paired with: a folder of connection files, one a backend."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from .own_key import own_key
from .wire import paths
from .wire.connection import Connection, is_address
from .wire.errors import UserError

NAME_MAX = 60


def known() -> dict[str, Path]:
    """The connection file of each backend that is known, by name."""
    try:
        files = sorted(paths.known_backends().glob("*.json"), key=lambda file: file.stem.lower())
    except OSError:
        return {}
    return {file.stem: file for file in files if not file.name.startswith(".")}


def file_of(name: str) -> Path:
    """The connection file of a known backend. Raises UserError when there is none of that name."""
    found = known().get(name)
    if found is None:
        raise UserError(f"No backend called '{name}' is known", "paste its pairing code in the add-on's preferences")
    return found


def add(connection: Connection, name: str = "") -> str:
    """Know a backend from now on; what it is called.

    One that is known already (by its key) gets the new address and keys. Without a client's key in `connection`, this
    machine's own is put in. Raises UserError when nothing can be written.
    """
    if not connection.has_client_key:
        public, secret = own_pair()
        connection = replace(connection, client_public_key=public, client_secret_key=secret)
    name = (
        _file_name(name) or _same(connection) or _free(_file_name(urlsplit(connection.address).hostname or "backend"))
    )
    _write(connection, name)
    return name


def rename(name: str, new: str) -> str:
    """Call a known backend otherwise; what it is called now. Raises UserError when another one is called that."""
    file, wanted = file_of(name), _file_name(new)
    if not wanted or wanted == name:
        return name
    if wanted.lower() != name.lower() and wanted.lower() in {known_name.lower() for known_name in known()}:
        raise UserError(f"Another backend is called '{wanted}'", "choose another name")
    file.rename(file.with_name(f"{wanted}.json"))
    return wanted


def move(name: str, address: str) -> None:
    """Reach a known backend at another address: the near end of a tunnel, say. Raises UserError for what is none."""
    text = address.strip()
    text = text if "://" in text else f"tcp://{text}"
    if not is_address(text):
        raise UserError(f"'{address}' is not an address", "write it as host:port")
    _write(replace(Connection.read(file_of(name)), address=text), name)


def forget(name: str) -> None:
    """Know a backend no more; the keys for it are gone. Raises UserError when there is none of that name."""
    file_of(name).unlink(missing_ok=True)


def own_pair() -> tuple[str, str]:
    """This computer's own key pair (public, secret). Raises UserError when it cannot be read or kept."""
    try:
        return own_key()
    except OSError as error:
        raise UserError(
            f"This computer's key cannot be kept ({error.strerror})", "free some space on the disk"
        ) from error


def _write(connection: Connection, name: str) -> None:
    folder = paths.make_private(paths.known_backends())
    try:
        connection.write(folder / f"{name}.json")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})", "free the disk, then try again") from error


def _same(connection: Connection) -> str:
    """The name under which the same server is known, or ''."""
    for name, file in known().items():
        try:
            if Connection.read(file).server_public_key == connection.server_public_key:
                return name
        except UserError:
            continue  # a damaged file; it says so when it is chosen
    return ""


def _free(name: str) -> str:
    taken, free, number = {known_name.lower() for known_name in known()}, name, 2
    while free.lower() in taken:
        free, number = f"{name} {number}", number + 1
    return free


def _file_name(text: str) -> str:
    """The text without what file systems do not take."""
    return re.sub(r"[^\w .()-]", "_", text).strip(" .")[:NAME_MAX].strip(" .")
