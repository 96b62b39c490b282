"""Jobs on the nodes of a Ray cluster: `RayExecutor` in the server, a driver beside it, a `NodeJob` where there is room.

Only the driver, a child process, imports ray: a lost cluster takes the driver with it, never the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ..server.process import WORKER_COMMAND
from ..wire import UserError, paths
from .executor import RayExecutor


def ray_executor(address: str = "auto", worker_command: Sequence[str] = WORKER_COMMAND) -> RayExecutor:
    """The executor of a server on the cluster at `address` ('auto': this machine's, or HOST:PORT).

    Takes some seconds. Raises UserError when Ray is not installed or the cluster cannot be reached.
    """
    if find_spec("ray") is None:
        raise UserError("Ray is not installed", "run: python3 install_deps.py backend --cluster")
    log_file = paths.logs_folder(paths.make_private(paths.home())) / "cluster.txt"
    return RayExecutor(address, log_file, worker_command=worker_command)
