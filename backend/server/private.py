"""The data folder made safe: only the user that runs the server may look into it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from ..wire import UserError, paths

log = logging.getLogger(__name__)

FOLDERS = (paths.jobs_folder, paths.uploads_folder, paths.proofs_folder, paths.cache_folder, paths.logs_folder)
FILES = (paths.server_keys, paths.authorized_keys, paths.connection_file, paths.jobs_database, paths.client_key)


def make_safe(home: Path) -> Path:
    """The data folder, made if need be, with itself, its folders and its secrets closed to others.

    What is too open is closed, with a warning. Raises UserError when that cannot be done, or when the folder is
    another user's. On Windows the folder lies in the user's own profile, and nothing is changed.
    """
    paths.make_private(home)
    if os.name != "posix":
        return home
    for place, mode in (
        (home, 0o700),
        *((folder(home), 0o700) for folder in (*FOLDERS, paths.seen_folder)),
        *((file(home), 0o600) for file in FILES),
        *((path, 0o600) for path in home.glob("jobs.db-*")),
    ):
        _close(place, mode)
    return home


def _close(path: Path, mode: int) -> None:
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return
    if about.st_uid != os.geteuid():
        raise UserError(
            f"{path} belongs to another user, who could read its keys",
            "set the environment variable KINORA_HOME to a folder of your own",
        )
    if stat.S_IMODE(about.st_mode) & 0o077 == 0:
        return
    try:
        os.chmod(path, stat.S_IMODE(about.st_mode) & mode)
    except OSError as error:
        raise UserError(f"{path} can be read by others and cannot be closed to them ({error.strerror})") from error
    log.warning("%s was open to other users of this machine and is closed now", path)
    if path.name == paths.server_keys(path.parent).name:
        log.warning("others may have read the server's keys: remove %s to have new ones, and pair clients again", path)
