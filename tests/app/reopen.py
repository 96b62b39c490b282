"""Opens the file of the first session again and looks whether everything is there; run by `tests.app`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from driving import Driver, show_tab, view


def steps(driver: Driver):
    view()[3].show_region_ui = True
    yield 1.5
    show_tab()
    yield 2.0
    driver.shot("reopened")


Driver("reopen", steps)
