"""Executors for the classes of tests of their contract: one for all tests of a class, and new ones on demand."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="class")
def home(request, tmp_path_factory):
    """The folder of all files of a class's tests; that of the nodes is in it."""
    folder = tmp_path_factory.mktemp(request.cls.__name__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINORA_HOME", str(folder / "node"))
        yield folder


@pytest.fixture(scope="class")
def make(request, home):
    """Makes executors of the class's kind."""
    return lambda: request.cls.new_executor(home)


@pytest.fixture(scope="class")
def executor(make):
    """One for all tests of the class."""
    it = make()
    yield it
    it.close()
