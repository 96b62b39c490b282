"""`python -m tests.chaos.serve [--port N] ...`: the real `serve` command, with a pipeline for tests in its workers.

KINORA_TEST_PIPELINE names the pipeline's module.
"""

from __future__ import annotations

import os
import sys
import threading

from backend.__main__ import main

from .client import end_with_parent
from .clock import fake_wall_clock

if __name__ == "__main__":
    fake_wall_clock()
    threading.Thread(target=end_with_parent, daemon=True).start()
    pipeline = os.environ.get("KINORA_TEST_PIPELINE", "tests.chaos.pipeline")
    worker = (sys.executable, "-m", "backend.server.worker", "--pipeline", pipeline)
    sys.exit(main(["serve", *sys.argv[1:]], worker))
