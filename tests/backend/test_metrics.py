"""Metrics: what is counted, how it is summed up, who may see it, and the text that Prometheus reads."""

import dataclasses
import shutil

import pytest
import zmq

from backend.cli.metrics import fetched, in_words
from backend.server.keys import new_client
from backend.server.metrics import FAMILIES, STAGES_MAX, TIMES_KEPT, Metrics, exposition, quantile
from backend.server.process import REPO, Outcome
from tests.serving import RawClient, clip_that, ends, send, server, wait_for


def values(metrics, name):
    """Label values -> number, of one family."""
    found = [s for s in metrics.samples({}, {}) if s.name == name]
    return {tuple(s.labels.values()): s.value for s in found}


def test_quantiles_lie_between_neighbours_in_proportion():
    assert quantile([4.0], 0.95) == 4.0
    assert quantile([1.0, 2.0], 0.5) == 1.5
    assert quantile([float(n) for n in range(101)], 0.95) == pytest.approx(95.0)


def test_stages_are_summed_up_over_jobs_and_peaks_are_the_largest():
    metrics = Metrics()
    for seconds, memory in ((1.0, 300), (2.0, 500), (6.0, 400)):
        report = {"stages": [["Looking", seconds], ["Writing", 0.5]], "peak_memory_bytes": memory}
        metrics.ended("classical", Outcome("done", report=report))
    metrics.ended("monst3r", Outcome("failed", cause="out_of_memory", report={"peak_gpu_bytes": 7}))
    assert values(metrics, "kinora_stage_seconds_count") == {("Looking",): 3, ("Writing",): 3}
    assert values(metrics, "kinora_stage_seconds_sum") == {("Looking",): 9.0, ("Writing",): 1.5}
    looking = {q: s for (stage, q), s in values(metrics, "kinora_stage_seconds").items() if stage == "Looking"}
    assert looking == {"0.5": 2.0, "0.95": pytest.approx(5.6)}
    assert values(metrics, "kinora_job_peak_memory_bytes") == {("classical",): 500}
    assert values(metrics, "kinora_job_peak_gpu_bytes") == {("monst3r",): 7}
    assert values(metrics, "kinora_jobs_ended_total") == {("done",): 3, ("failed",): 1}
    assert values(metrics, "kinora_worker_failures_total") == {("out_of_memory",): 1}


def test_neither_names_nor_numbers_make_the_server_grow():
    metrics = Metrics()
    for n in range(10 * TIMES_KEPT):
        metrics.ended(f"engine {n}", Outcome("done", report={"stages": [[f"stage {n}", 1.0], ["Looking", float(n)]]}))
    assert len(values(metrics, "kinora_stage_seconds_count")) == STAGES_MAX
    assert values(metrics, "kinora_stage_seconds_count")[("Looking",)] == 10 * TIMES_KEPT
    newest = range(9 * TIMES_KEPT, 10 * TIMES_KEPT)
    assert values(metrics, "kinora_stage_seconds")[("Looking", "0.5")] == pytest.approx(sum(newest) / TIMES_KEPT)


def test_the_text_for_prometheus_has_each_family_once_with_what_it_is():
    metrics = Metrics()
    metrics.ended("a", Outcome("done", report={"stages": [['with "quotes"\n', 2.0]]}))
    metrics.refused("bad_request")
    text = exposition([s.to_json() for s in metrics.samples({"queued": 2}, {"kinora_sessions": 1})])
    lines = text.splitlines()
    assert 'kinora_jobs{state="queued"} 2' in lines
    assert "kinora_sessions 1" in lines
    assert 'kinora_requests_refused_total{code="bad_request"} 1' in lines
    assert r'kinora_stage_seconds{stage="with \"quotes\"\n",quantile="0.5"} 2.0' in lines
    assert r'kinora_stage_seconds_sum{stage="with \"quotes\"\n"} 2.0' in lines
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    for line in lines:
        family = line.split("{")[0].split()[0]
        assert line.startswith("#") or any(family in (t, f"{t}_sum", f"{t}_count") for t in types), line
    assert text.endswith("\n")


def test_every_family_is_on_the_page():
    page = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
    assert not [name for name in FAMILIES if name not in page]


def test_all_pages_are_fetched():
    rows = [{"name": "kinora_jobs", "labels": {"state": str(n)}, "value": n} for n in range(7)]
    asked = []

    def ask(kind, first):
        asked.append((kind, first))
        return {"samples": rows[first : first + 3], "total": len(rows)}

    assert fetched(ask) == rows
    assert asked == [("metrics", 0), ("metrics", 3), ("metrics", 6)]


def test_a_server_counts_jobs_bytes_and_refusals_for_its_own_machine(tmp_path):
    with server(tmp_path / "home") as broker, RawClient(broker.connection) as raw:
        clip = clip_that(tmp_path, "work")
        ends(raw, send(raw, clip)["job"])
        ends(raw, send(raw, clip_that(tmp_path, "refuse"))["job"])
        raw.ask("status", job="0" * 32)
        rows = fetched(lambda kind, **fields: raw.ask(kind, **fields))
        found = {(row["name"], *row["labels"].values()): row["value"] for row in rows}
        assert found["kinora_jobs", "done"] == 1
        assert found["kinora_jobs", "failed"] == 1
        assert found["kinora_jobs", "queued"] == 0
        assert found["kinora_jobs_ended_total", "done"] == 1
        assert found["kinora_requests_refused_total", "no_such_job"] == 1
        assert found["kinora_requests_total", "upload_chunk"] == 2
        assert found["kinora_received_bytes_total",] >= clip.stat().st_size
        assert found["kinora_sessions",] == 1
        assert found["kinora_up_seconds",] > 0
        assert found["kinora_disk_free_bytes",] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
        assert found["kinora_keys_refused_total",] == 0
        told = in_words(rows)
        assert "1 done, 1 failed" in told
        assert "1 no_such_job" in told


def test_other_machines_do_not_see_them_and_strangers_are_counted(tmp_path):
    with server(tmp_path / "home") as broker:
        guest = new_client(tmp_path / "home", "anna", broker.connection.address)
        with RawClient(guest) as raw:
            assert raw.ask("metrics", first=0)["code"] == "forbidden"
        public, secret = (key.decode() for key in zmq.curve_keypair())
        stranger = dataclasses.replace(guest, client_public_key=public, client_secret_key=secret)
        with RawClient(broker.connection) as raw, RawClient(stranger, hello=False):
            refused = lambda: [s for s in fetched(raw.ask) if s["name"] == "kinora_keys_refused_total"]  # noqa: E731
            wait_for(lambda: refused()[0]["value"] >= 1)


def test_stages_of_a_real_job_are_told(tmp_path):
    with server(tmp_path / "home") as broker, RawClient(broker.connection) as raw:
        ends(raw, send(raw, clip_that(tmp_path, "work"))["job"])
        rows = raw.ask("metrics", first=0)["samples"]
        counts = {r["labels"]["stage"]: r["value"] for r in rows if r["name"] == "kinora_stage_seconds_count"}
        assert counts["Looking"] == 1
        assert counts["Writing the capture"] == 1
        (peak,) = [r["value"] for r in rows if r["name"] == "kinora_job_peak_memory_bytes"]
        assert 10e6 < peak < 10e9  # a Python with NumPy in it, and not the machine's whole memory
