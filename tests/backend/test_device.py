"""Which device a run gets: what it asks for, what KINORA_DEVICE says, or the best there is."""

import pytest
import torch

from backend.device import choose_device
from backend.run import Run
from backend.wire import UserError


@pytest.fixture(autouse=True)
def no_wish(monkeypatch):
    monkeypatch.delenv("KINORA_DEVICE", raising=False)


def test_a_run_gets_the_device_that_it_asks_for_whatever_the_machine_is_set_to(monkeypatch):
    monkeypatch.setenv("KINORA_DEVICE", "no such device")
    run = Run(device="cpu")
    assert choose_device(run) == torch.device("cpu")
    assert run.device == "cpu"


@pytest.mark.parametrize("there", [True, False])
def test_automatic_is_the_graphics_card_where_there_is_one(monkeypatch, there):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch, "zeros", lambda n, device: asked.append(device))
    run = Run(device="auto")
    choose_device(run)
    assert run.device == ("cuda" if there else "cpu")
    assert asked == [torch.device(run.device)]  # tried, not only believed


def test_the_environment_decides_for_automatic(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("KINORA_DEVICE", "cpu")
    run = Run(device="auto")
    choose_device(run)
    assert run.device == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "warp drive"])
def test_a_device_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"The device '{name}' cannot be used \(.+\); use cpu"):
        choose_device(Run(device=name))


def test_threads_are_set_where_a_run_has_a_number_of_them():
    before = torch.get_num_threads()
    try:
        choose_device(Run(threads=before + 1))
        assert torch.get_num_threads() == before + 1
        choose_device(Run(threads=0))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
