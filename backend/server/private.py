"""The data folder made safe: only the user that runs the server may look into it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import IO

from ..wire import UserError, paths

BINARY = getattr(os, "O_BINARY", 0)
log = logging.getLogger(__name__)

#: What nobody else may own.
SECRETS = (paths.server_keys, paths.authorized_keys, paths.connection_file, paths.jobs_database, paths.client_key)


def make_safe(home: Path) -> Path:
    """The data folder, made if need be, with itself, its folders and its secrets closed to others.

    What is too open is closed, with a warning if others could reach it. Raises UserError when that cannot be done, or
    when the folder is another user's. On Windows the folder lies in the user's own profile, and nothing is changed.
    """
    paths.make_private(home)
    if os.name != "posix":
        return home
    reachable = stat.S_IMODE(os.stat(home).st_mode) & 0o077 != 0
    secrets = {home, *(file(home) for file in SECRETS)}
    for place in [home, *home.iterdir()]:
        if _close(place, must=place in secrets) and reachable:
            log.warning("%s was open to other users of this machine and is closed now", place)
            if place == paths.server_keys(home):
                log.warning("they may have read its keys: remove %s for new ones, and pair every client again", place)
    return home


def open_plain(path: Path) -> IO[bytes]:
    """A plain file of the data folder for reading; FileNotFoundError when a link, pipe or device took its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | BINARY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise FileNotFoundError(errno.ENOENT, "a link, not a file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def _close(path: Path, *, must: bool) -> bool:
    """Take the rights that others have on a path; whether there were any. Raises UserError when it `must` be closed."""
    try:
        about = os.stat(path)
        if about.st_uid != os.geteuid() and must:
            raise UserError(
                f"{path} belongs to another user, who could read its keys",
                "set the environment variable KINORA_HOME to a folder of your own",
            )
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077 == 0 or about.st_uid != os.geteuid():
            return False
        os.chmod(path, mode & 0o700)
    except FileNotFoundError:  # gone meanwhile, or a link to nowhere
        return False
    except OSError as error:
        if must:
            raise UserError(
                f"{path} cannot be closed to other users ({error.strerror})", "move it elsewhere"
            ) from error
        return False
    return True
