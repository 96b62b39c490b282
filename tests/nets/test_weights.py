"""Weights: got once under accepted terms, from a hub that cuts, lies or is away, and never a bad file in place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from backend.__main__ import main
from backend.nets import download, manifest, sources, weights
from backend.nets.checkpoint import read_checkpoint
from backend.nets.receipt import Receipt, only_one
from backend.nets.weights import find_installed, find_weights, get_weights, verify_weights
from backend.run import Run
from backend.wire import Cancelled, UserError
from tests.fake_hub import COMMIT, FakeHub, running

REPO = "studio/pair"
CONFIG = b'{"head_type": "dpt", "conf_mode": ["exp", 1, Infinity]}'
ROOT = Path(manifest.__file__).resolve().parents[2]


def tensors(first="downstream_head1.dpt.head.0.weight"):
    rng = np.random.default_rng(0)
    return {first: rng.standard_normal((500, 1000), np.float32), "enc_norm.weight": np.ones(24, np.float32)}


MODEL = save(tensors())  # 2 MB
PARAMETERS = 500 * 1000 + 24


def listed(**changes):
    """A list of weights with one model, whose fields are as given."""
    fields = {
        "title": "Pair",
        "engine": "monst3r",
        "repo": REPO,
        "licence": "NC",
        "note": "made of films",
        "network": "pair-dpt",
        "parameters": PARAMETERS,
    } | changes
    files = fields.pop("files", [{"name": "model.safetensors", "about_bytes": 2000000}, {"name": "config.json"}])

    def toml(value):
        return json.dumps(value) if not isinstance(value, dict) else table(value)

    def table(entry):
        return "{" + ", ".join(f"{key} = {toml(value)}" for key, value in entry.items()) + "}"

    rows = "".join(f"{key} = {toml(value)}\n" for key, value in fields.items() if value is not None)
    return (
        '[licences.NC]\ncommercial_use = false\nsummary = "films only"\nurl = "https://example.invalid/nc"\n'
        '[licences.Free]\ncommercial_use = true\nsummary = "any use"\nurl = "https://example.invalid/free"\n'
        f"[models.pair]\n{rows}files = [{', '.join(map(table, files))}]\n"
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data folder, an empty cache of huggingface_hub, and no wait between tries."""
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    for name in ("KINORA_WEIGHTS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES_S", (0.01,) * 5)
    return tmp_path / "home" / "weights"


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Make this the list of weights."""

    def choose(**changes):
        (tmp_path / "checkpoints.toml").write_text(listed(**changes))
        monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "checkpoints.toml")

    choose()
    return choose


@pytest.fixture
def hub(home, choose, monkeypatch):
    with running(FakeHub({REPO: {"model.safetensors": MODEL, "config.json": CONFIG}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def get(**options):
    return get_weights("pair", Run(), **{"accept": True, **options})


def left(folder):
    """Every file below the folder, but for the receipt and the lock."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name not in ("weights.json", ".lock"))


# The list that is shipped


def test_the_shipped_list_holds_together():
    known = manifest.models()
    assert {"monst3r", "dust3r_224", "mast3r", "point3r", "mononerf_encoder", "raft_large", "sam2_large"} <= set(known)
    assert (known["monst3r"].parameters, known["monst3r"].files[1].bytes) == (571171208, 453)
    assert not known["monst3r"].licence.commercial_use
    for model in known.values():
        assert model.size > 1e6
        assert model.note or model.licence.name == "Apache-2.0"


@pytest.mark.slow  # torchvision alone takes seconds to import
@pytest.mark.parametrize("name", ["raft_large", "raft_small", "mononerf_encoder"])
def test_what_is_listed_of_torchvision_is_what_torchvision_lists(name):
    from torchvision.models import get_weight

    model = manifest.models()[name]
    entry = get_weight(model.torchvision)
    assert entry.url.endswith("/" + model.checkpoint.name)
    assert entry.meta["num_params"] == model.parameters
    assert abs(entry.meta["_file_size"] * 2**20 - model.checkpoint.size) < 0.001 * 2**20
    assert model.checkpoint.name.split("-")[-1].startswith(model.checkpoint.hash_start[:8])


def test_a_list_that_contradicts_itself_is_a_mistake_of_ours(choose):
    for changes in ({"page": "x"}, {"repo": None}, {"revision": "main"}, {"files": [{"name": "../x"}]}):
        choose(**changes)
        with pytest.raises(ValueError, match="pair: "):
            manifest.models()


# Getting


def test_weights_are_got_checked_recorded_and_found(hub, home):
    with pytest.raises(
        UserError, match=r"Pair are not on this machine \(2.0 MB, NC: no commercial use\); run: python -m"
    ):
        find_weights("pair")
    reports = []
    got = get_weights("pair", Run(report=reports.append), accept=True)
    assert find_weights("pair") == got.checkpoint == home / "pair" / "model.safetensors"
    assert got.checkpoint.read_bytes() == MODEL
    assert read_checkpoint(got.checkpoint).config["head_type"] == "dpt"
    assert find_installed("pair").stamp() == {
        "name": "pair",
        "source": REPO,
        "commit": COMMIT,
        "sha256": sources.sha256_of(got.checkpoint, Run()),
        "licence": "NC",
        "commercial_use": False,
    }
    assert left(home) == ["config.json", "model.safetensors"]
    fractions = [report.stage_fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {report.stage for report in reports} == {"Getting Pair"}


def test_the_fake_hub_is_one_to_huggingface_hub_itself(hub, tmp_path):
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path / "c", endpoint=hub.address, token=False)
    assert Path(path).read_bytes() == MODEL
    assert Path(path).parent.name == COMMIT


def test_both_files_come_of_one_commit_and_a_second_get_asks_nothing(hub):
    get()
    paths = [path for _, path, _, _ in hub.seen]
    assert f"/{REPO}/resolve/{COMMIT}/config.json" in paths
    assert f"/{REPO}/resolve/main/config.json" not in paths
    hub.seen.clear()
    get(accept=False)
    assert hub.seen == []


def test_a_log_in_goes_to_the_hub_and_not_to_its_store(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_for_the_test")
    get()
    told = {path.split("/")[1]: logged_in for _, path, _, logged_in in hub.seen}
    assert told == {"studio": True, "small": True, "store": False}


def test_a_download_goes_on_where_it_was_cut(hub):
    hub.cut_after = [500_000, 100_000, 1, 900_000]
    got = get()
    assert got.checkpoint.read_bytes() == MODEL
    assert hub.ranges() == [None, "bytes=500000-", "bytes=600000-", "bytes=600001-", "bytes=1500001-"]


def test_a_server_without_ranges_is_read_from_the_start(hub):
    hub.cut_after, hub.knows_ranges = [500_000], False
    assert get().checkpoint.read_bytes() == MODEL
    assert hub.ranges() == [None, "bytes=500000-"]


def test_a_busy_hub_is_asked_again(hub):
    hub.busy = [503, 429, 500]
    assert get().checkpoint.read_bytes() == MODEL


def test_a_hub_that_only_cuts_is_given_up_and_what_came_is_kept(hub, home):
    hub.cut_after = [400_000] + [0] * 20
    with pytest.raises(UserError, match=r"model.safetensors from localhost:\d+ was cut again and again"):
        get()
    assert [name[-5:] for name in left(home)] == [".part"]
    with pytest.raises(UserError, match="not on this machine"):
        find_weights("pair")
    hub.cut_after.clear()
    get()
    assert hub.ranges()[-1] == "bytes=400000-"
    assert left(home) == ["config.json", "model.safetensors"]


@pytest.mark.slow  # two processes
def test_another_process_goes_on_after_a_kill(hub, home, tmp_path):
    hub.stall_at = 1_200_000
    code = (
        "import sys; from pathlib import Path; from backend.nets import manifest; from backend.__main__ import main; "
        f"manifest.MANIFEST = Path({str(tmp_path / 'checkpoints.toml')!r}); "
        "sys.exit(main(['weights', 'get', 'pair', '--accept-licence']))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache")}

    def start():
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

    first = start()
    until = time.monotonic() + 30
    while sum(p.stat().st_size for p in home.rglob("*.part")) < 1_100_000:
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    first.wait()
    came = sum(p.stat().st_size for p in home.rglob("*.part"))
    hub.stall_at = None
    hub.go_on.set()
    assert start().wait(60) == 0
    assert hub.ranges() == [None, f"bytes={came}-"]
    assert find_weights("pair").read_bytes() == MODEL
    assert left(home) == ["config.json", "model.safetensors"]


def test_files_that_came_whole_before_a_kill_are_not_downloaded_again(hub, home):
    get()
    (home / "weights.json").unlink()
    hub.seen.clear()
    get()
    assert {method for method, *_ in hub.seen} == {"HEAD"}


def test_a_run_that_is_cancelled_stops_and_keeps_its_part(hub, home):
    asked = 0

    def is_cancelled():
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(Cancelled):
        get_weights("pair", Run(is_cancelled=is_cancelled), accept=True)
    assert [name[-5:] for name in left(home)] == [".part"]
    assert get().checkpoint.read_bytes() == MODEL


def test_a_flipped_byte_is_never_put_in_place(hub, home):
    hub.corrupt = True
    with pytest.raises(UserError, match=r"model.safetensors came with another checksum than it is published with"):
        get()
    assert left(home) == []
    hub.corrupt = False
    get()


def test_a_small_file_whose_size_is_not_told_beforehand_comes_too(hub, home):
    hub.tells_size = False
    assert get().files["config.json"].read_bytes() == CONFIG


def test_a_small_file_is_held_to_gits_hash(hub, home):
    hub.claims = {"ETag": '"' + "0" * 40 + '"'}
    with pytest.raises(UserError, match=r"config.json came with another checksum"):
        get()
    assert left(home) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"network": "mast3r"}, "is not Pair; it looks like a pair network with a DPT head"),
        ({"parameters": 571171208}, "is not Pair: it has 500,024 parameters, not 571,171,208"),
        ({"files": [{"name": "model.safetensors", "sha256": "0" * 64}]}, "was changed by its publisher"),
        ({"files": [{"name": "model.safetensors", "bytes": 3}]}, "has 2.0 MB there, not 3 bytes"),
        ({"files": [{"name": "model.safetensors", "about_bytes": 3_000_000}]}, "has 2.0 MB there, not 3.0 MB"),
        ({"files": [{"name": "nosuch.safetensors"}]}, f"There is no nosuch.safetensors in {REPO}"),
        ({"repo": "studio/nosuch"}, "studio/nosuch is not on the hub any more"),
        ({"revision": "a" * 40}, "is not on the hub any more, or not in this version"),
        ({"files": [{"name": "config.json"}]}, "config.json is a configuration, not the weights of Pair"),
    ],
)
def test_what_differs_from_the_list_is_refused_by_name(hub, home, choose, changes, says):
    choose(**changes)
    with pytest.raises(UserError, match=says):
        get()
    assert left(home) == []


def test_a_pinned_commit_is_the_one_that_is_asked_for(hub, choose):
    choose(revision=COMMIT)
    get()
    assert all("/main/" not in path for _, path, _, _ in hub.seen)


def test_an_optional_file_may_be_absent(hub, choose):
    choose(files=[{"name": "model.safetensors"}, {"name": "processor.json", "optional": True}])
    assert list(get().files) == ["model.safetensors"]


def test_a_gated_repository_says_how_to_get_in(hub):
    hub.gated.add(REPO)
    with pytest.raises(
        UserError, match=r"open only to those whom its publisher let in; ask for access on http://.*hf auth"
    ):
        get()


def test_a_server_that_is_no_hub_is_told(hub):
    hub.claims = {"X-Repo-Commit": ""}
    with pytest.raises(UserError, match="does not answer as a hub does"):
        get()


def test_without_network_it_says_so_and_what_else_there_is(home, choose, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=r"127.0.0.1:9 cannot be reached .*--from"):
        get()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_nothing_is_asked(hub, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="downloads are off"):
        get(offline=how == "option")
    assert hub.seen == []


def test_too_small_a_disk_is_told_before_anything_comes(hub, monkeypatch):
    usage = shutil.disk_usage(ROOT)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"There is no room for 2.0 MB in .*, where 1.0 MB are free"):
        get()
    assert hub.ranges() == []


def test_a_disk_that_fills_up_is_told_and_the_rest_comes_later(hub, home, monkeypatch):
    def full(file, hashes, real=download._Hash.update):
        if file.count > 1_000_000:
            raise OSError(28, "No space left on device")
        real(file, hashes)

    with monkeypatch.context() as patch:
        patch.setattr(download._Hash, "update", full)
        with pytest.raises(UserError, match=r"The disk of .* is full; free some space; the rest comes then"):
            get()
    hub.seen.clear()
    assert get().checkpoint.read_bytes() == MODEL
    assert int(hub.ranges()[0].removeprefix("bytes=").removesuffix("-")) >= 1_000_000


def test_an_address_of_torchvision_is_held_to_the_hash_in_its_name(hub, home, choose, monkeypatch):
    monkeypatch.setattr(sources, "torchvision_url", lambda name: f"{hub.address}/store/any")
    hub.repos = {REPO: {"any": MODEL}}
    start = sources.hashlib.sha256(MODEL).hexdigest()[:8]
    right, wrong = f"raft-{start}.pth", "raft-01234567.pth"
    choose(repo=None, torchvision="Any", files=[{"name": wrong}])
    with pytest.raises(UserError, match="another checksum than the published file"):
        get()
    assert left(home) == []
    choose(repo=None, torchvision="Any", files=[{"name": right}])
    hub.cut_after = [700_000]
    assert get().checkpoint.name == right
    assert hub.ranges()[-1] == "bytes=700000-"


def test_what_only_a_person_can_download_says_where(home, choose):
    choose(repo=None, page="https://example.invalid/pair")
    with pytest.raises(UserError, match=r"only be downloaded by hand .*see https://example.invalid/pair.*--from FILE"):
        get()


def test_a_file_that_its_publisher_changes_meanwhile_is_not_pieced_together(hub, home):
    hub.stall_at, hub.cut_after = 300_000, [600_000]
    other = save({**tensors(), "enc_norm.weight": np.zeros(24, np.float32)})

    def change():
        while not hub.ranges():
            time.sleep(0.01)
        hub.repos[REPO]["model.safetensors"] = other
        hub.go_on.set()

    changing = threading.Thread(target=change)
    changing.start()
    with pytest.raises(UserError, match=r"model.safetensors was changed by its publisher meanwhile; start again"):
        get()
    changing.join()
    hub.stall_at = None
    assert get().checkpoint.read_bytes() == other
    assert left(home) == ["config.json", "model.safetensors"]


def test_two_do_not_get_at_once(hub, home):
    with only_one(home), pytest.raises(UserError, match="Another process is getting weights"):
        get()
    get()


# Terms


def test_terms_without_commercial_use_are_accepted_once(hub, home):
    with pytest.raises(
        UserError, match=r"Pair comes under NC: films only; read https://example.invalid/nc, and say --acc"
    ):
        get(accept=False)
    assert hub.seen == []
    assert not home.exists()
    get()
    accepted = Receipt(home).accepted_at(manifest.models()["pair"])
    shutil.rmtree(home / "pair")
    get(accept=False)
    assert Receipt(home).accepted_at(manifest.models()["pair"]) == accepted


def test_other_terms_are_asked_for_again_and_free_ones_never(hub, home, choose):
    get()
    path = home / "weights.json"
    path.write_text(path.read_text().replace('"NC"', '"older NC"'))
    with pytest.raises(UserError, match="comes under NC"):
        get(accept=False)
    choose(licence="Free")
    (home / "weights.json").unlink()
    assert get(accept=False).record["accepted_at"] is None


# Files of one's own


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(MODEL)
    (folder / "config.json").write_bytes(CONFIG)
    return folder


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_or_folder_of_ones_own_is_taken(home, choose, own, what, in_place):
    got = get(source=own if what == "folder" else own / "model.safetensors", in_place=in_place)
    assert got.checkpoint == (own if in_place else home / "pair") / "model.safetensors"
    assert list(got.files) == ["model.safetensors", "config.json"]
    assert find_weights("pair").read_bytes() == MODEL
    assert all(finding.good for finding in verify_weights(Run()))


def test_a_pth_may_stand_in_for_the_published_format(home, choose, own):
    import torch

    (own / "model.safetensors").unlink()
    torch.save({"model": {k: torch.from_numpy(v) for k, v in tensors().items()}}, own / "net.pth")
    assert get(source=own).checkpoint == home / "pair" / "net.pth"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (MODEL[:-7], f"is cut at byte {len(MODEL) - 7} of {len(MODEL)}"),
        (save(tensors("downstream_head1.proj.weight")), "is not Pair; it looks like a pair network with a linear head"),
        (save({"vision_encoder.backbone.x": np.ones(3)}), "is not Pair; it looks like SAM 2"),
        (save({"something.else": np.ones(3)}), "is not Pair; choose the weights of this model"),
        (b"<html>Sign in</html>", "is a web page"),
        (CONFIG, "is a configuration, not the weights of Pair"),
    ],
)
def test_a_wrong_cut_or_foreign_file_is_refused_by_what_it_is(home, choose, own, content, says):
    (own / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=says):
        get(source=own / "model.safetensors")
    assert left(home) == []


def test_figures_that_are_pinned_hold_for_a_file_of_ones_own(home, choose, own):
    choose(files=[{"name": "model.safetensors", "bytes": len(MODEL) + 1}])
    with pytest.raises(UserError, match=f"is cut at byte {len(MODEL)} of {len(MODEL) + 1}"):
        get(source=own)
    choose(files=[{"name": "model.safetensors", "sha256": "0" * 64}])
    with pytest.raises(UserError, match=r"model.safetensors has another checksum than the published file"):
        get(source=own)
    assert left(home) == []


def test_a_file_without_the_configuration_that_belongs_to_it_is_told(home, choose, own):
    (own / "config.json").unlink()
    with pytest.raises(UserError, match=f"There is no config.json beside model.safetensors; put that of {REPO} there"):
        get(source=own)


def test_a_folder_without_or_with_too_many_checkpoints_is_told(home, choose, own):
    (own / "model.safetensors").rename(own / "a.safetensors")
    assert get(source=own).checkpoint.name == "a.safetensors"
    shutil.copy(own / "a.safetensors", own / "b.safetensors")
    with pytest.raises(UserError, match=r"has 2 checkpoints and no model.safetensors"):
        get(source=own)
    with pytest.raises(UserError, match="There is no file"):
        get(source=own / "nosuch")


# The cache of huggingface_hub


@pytest.fixture
def cached(hub, tmp_path):
    from huggingface_hub import hf_hub_download

    for name in ("model.safetensors", "config.json"):
        path = hf_hub_download(REPO, name, cache_dir=tmp_path / "cache", endpoint=hub.address, token=False)
    hub.seen.clear()
    return Path(path).parent


def test_what_another_program_downloaded_is_used_where_it_is(hub, cached, home):
    got = get(offline=True)
    assert hub.seen == []
    assert got.checkpoint == cached / "model.safetensors"
    assert (got.record["source"], got.record["commit"]) == (REPO, COMMIT)
    assert left(home) == []


def test_a_damaged_cache_is_passed_over(hub, cached, home):
    blob = (cached / "model.safetensors").resolve()
    blob.write_bytes(MODEL[:-1] + bytes([MODEL[-1] ^ 1]))  # the size is right, so huggingface_hub takes it
    assert get().checkpoint == home / "pair" / "model.safetensors"


# Afterwards


def test_verify_tells_what_is_wrong_and_get_mends_it(hub, home):
    get()
    path = find_weights("pair")
    assert [finding.good for finding in verify_weights(Run(), ("pair",))] == [True, True]
    for damage, says in (
        (lambda: path.write_bytes(MODEL[:-1] + b"x"), "another checksum than it had"),
        (lambda: path.write_bytes(MODEL[:-1]), f"has {len(MODEL) - 1} bytes instead of {len(MODEL)}"),
        (lambda: path.unlink(), "is not there any more"),
    ):
        damage()
        bad = [finding for finding in verify_weights(Run()) if not finding.good]
        assert [finding.path for finding in bad] == [path]
        assert says in bad[0].words
        get(accept=False)
        assert path.read_bytes() == MODEL


def test_a_missing_or_short_file_is_not_found(hub, home):
    path = get().checkpoint
    path.write_bytes(MODEL[:-1])
    with pytest.raises(UserError, match="not on this machine"):
        find_weights("pair")


def test_a_damaged_receipt_is_told(home, choose):
    home.mkdir(parents=True)
    files = '{"version": 1, "models": {"pair": {"files": {"model.safetensors": {"bytes": 1}}}}}'
    for content in ("{", "[]", '{"version": 2, "models": {}}', files):
        (home / "weights.json").write_text(content)
        with pytest.raises(UserError, match=r"is damaged|another version"):
            find_weights("pair")


def test_names_that_are_not_listed_are_refused(home, choose):
    with pytest.raises(UserError, match="There are no weights 'nosuch'; choose one of pair"):
        find_weights("nosuch")
    with pytest.raises(UserError, match="Pair was not got yet"):
        list(verify_weights(Run(), ("pair",)))


# The command line


def test_list_get_and_verify(hub, home, tmp_path, monkeypatch, capsys):
    assert main(["weights", "list"]) == 0
    assert "not here" in capsys.readouterr().out
    assert main(["weights", "get", "pair"]) == 1
    told = capsys.readouterr()
    for words in ("Pair  2.0 MB  NC: no commercial use", "films only", "made of films", "--accept-licence"):
        assert words in told.err
    assert hub.seen == []
    assert main(["weights", "get", "pair", "--accept-licence"]) == 0
    assert f"{home / 'pair' / 'model.safetensors'}  as the hub lists it" in capsys.readouterr().out
    assert main(["weights"]) == 0
    assert "not here" not in capsys.readouterr().out
    assert main(["weights", "verify"]) == 0
    assert capsys.readouterr().out.count("ok ") == 2
    (home / "pair" / "config.json").unlink()
    assert main(["weights", "verify", "pair"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith("!! ")
    assert "config.json  is not there any more" in told.out


def test_another_folder_and_a_file_of_ones_own_on_the_command_line(home, choose, own, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "elsewhere"
    source = ["--from", str(own), "--accept-licence"]
    assert main(["weights", "get", "pair", *source, "--folder", str(folder)]) == 0
    assert find_weights("pair", folder).parent == folder / "pair"
    assert not home.exists()
    monkeypatch.setenv("KINORA_WEIGHTS", str(folder))
    assert find_weights("pair").parent == folder / "pair"
    assert main(["weights", "get", "pair", "pair", *source]) == 1
    assert main(["weights", "get", "pair", "--in-place", "--accept-licence"]) == 1
    assert "name it with --from" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "code"), [("y\n", 0), ("\n", 1), ("no\n", 1), ("", 1)])
def test_on_a_terminal_the_terms_are_asked_for(home, choose, own, monkeypatch, capsys, said, code):
    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return said

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["weights", "get", "pair", "--from", str(own)]) == code
    told = capsys.readouterr().err
    assert "Do you accept these terms? [y/N]" in told
    assert ("was not got" in told) == bool(code)


def test_finding_weights_imports_nothing_heavy():
    code = "import sys, backend.nets.weights, backend.cli.weights; print(*sys.modules, sep='\\n')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not {"torch", "torchvision", "huggingface_hub", "httpx2"} & set(told.splitlines())
    assert weights.__name__ in told
