"""What the services expose is what docs/metrics.md, the dashboard and the alerts speak of."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.calls import Caller, bulk_answers, bulk_header, header, piece
from tests.e2e.metrics_page import value_of
from tests.e2e.pict_rs import post
from tests.e2e.processes import fetch, free_port, gateway, inference, is_alive, wait_until
from tests.media import drawn, still

ROOT = Path(__file__).parent.parent.parent
MONITORING = ROOT / "k8s/monitoring"
AUTOSCALERS = [
    ROOT / "k8s/components" / name
    for name in ("hpa/prometheus-adapter.yaml", "keda/scaled-object.yaml")
]
BAD = still(drawn(("red", "triangle")))
ENDINGS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}


@dataclass(frozen=True)
class Watched:
    inference: str
    gateway: str
    gateway_metrics: str
    inference_metrics: str

    def scraped(self) -> str:
        pages = [fetch(url) for url in (self.gateway_metrics, self.inference_metrics)]
        assert [status for status, _ in pages] == [200, 200]
        return "".join(page for _, page in pages)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return value_of(self.scraped(), name, **labels)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    metrics = f"127.0.0.1:{free_port()}"
    with (
        inference("--metrics-listen", metrics) as scoring,
        gateway(scoring.address, "--repeats", "false") as http,
    ):
        pages = f"http://{http.admin}/metrics", f"http://{metrics}/metrics"
        yield Watched(scoring.address, http.address, *pages)


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric in the table."""
    row = re.compile(r"\| `(imagesafety_\w+)` \| (\w+) \|(.*?)\| ")
    found = row.findall((ROOT / "docs/metrics.md").read_text())
    assert len({name for name, _, _ in found}) == len(found)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", label))) for name, kind, label in found}


def name_of(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


async def test_the_table_has_what_is_exposed_and_nothing_else(watched: Watched) -> None:
    await asyncio.gather(*(post(watched.gateway, data) for data in (BAD, b"no picture")))
    await post(watched.gateway, BAD, "text/plain")
    families = [
        family
        for family in text_string_to_metric_families(watched.scraped())
        if not family.name.startswith("process_")
    ]
    assert {name_of(family): family.type for family in families} == {
        name: kind for name, (kind, _) in documented().items()
    }
    for family in families:
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == documented()[name_of(family)][1]


def test_dashboard_alerts_and_autoscalers_use_metrics_and_labels_that_there_are() -> None:
    used = "\n".join(
        [
            *(target["expr"] for panel in panels() for target in panel.get("targets", ())),
            (MONITORING / "rules.yaml").read_text(),
            (MONITORING / "rules-test.yaml").read_text(),
            *(path.read_text() for path in AUTOSCALERS),
        ]
    )
    series = {
        name + ending
        for name, (kind, _) in documented().items()
        for ending in (ENDINGS["histogram"] if kind == "histogram" else ("",))
    }
    named = set(re.findall(r"\bimagesafety_\w+", used))
    assert named - series == set()
    for name, selector in re.findall(r"\b(imagesafety_\w+)\{(.*?)\}", used):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        labels = set(re.findall(r'(\w+)!?=~?"', selector)) - {
            "job",
            "instance",
            "le",
            "namespace",
            "pod",
        }
        assert labels <= documented()[base][1], (name, selector)


def panels() -> list[dict[str, list[dict[str, str]]]]:
    found: list[dict[str, list[dict[str, str]]]]
    found = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


def test_the_dashboard_shows_every_metric() -> None:
    shown = "\n".join(t["expr"] for panel in panels() for t in panel.get("targets", ()))
    hidden = {name for name in documented() if name not in shown}
    assert hidden == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
class TestWithPromtool:
    def promtool(self, *command: str, text: str = "") -> None:
        done = subprocess.run(
            ["promtool", *command], cwd=MONITORING, input=text, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr

    def test_the_rules_are_valid(self) -> None:
        self.promtool("check", "rules", "rules.yaml")

    def test_each_alert_fires_when_it_should(self) -> None:
        self.promtool("test", "rules", "rules-test.yaml")
        rules = (MONITORING / "rules.yaml").read_text()
        played = (MONITORING / "rules-test.yaml").read_text()
        for alert in re.findall(r"alert: (\w+)", rules):
            assert alert in played

    def test_each_panel_asks_a_valid_question(self, tmp_path: Path) -> None:
        questions = [t["expr"] for panel in panels() for t in panel.get("targets", ())]
        rules = [
            {"record": f"panel:{number}", "expr": question.replace("$__rate_interval", "1m")}
            for number, question in enumerate(questions)
        ]
        file = tmp_path / "panels.yaml"
        file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
        self.promtool("check", "rules", str(file))

    def test_the_names_are_as_is_usual(self, watched: Watched) -> None:
        for url in (watched.gateway_metrics, watched.inference_metrics):
            self.promtool("check", "metrics", text=fetch(url)[1])


async def test_what_happens_to_an_upload_is_counted(watched: Watched) -> None:
    stages = {
        ("imagesafety_upload_stage_seconds_count", stage)
        for stage in ("upload", "score", "decode", "encode")
    } | {
        ("imagesafety_image_stage_seconds_count", stage)
        for stage in ("receive", "decode_wait", "decode", "queue_wait", "encode", "total")
    }
    before = {(name, stage): watched.value(name, stage=stage) for name, stage in stages}
    scored = watched.value("imagesafety_images_total", outcome="scored")
    failed = watched.value("imagesafety_images_total", reason="UNSUPPORTED_TYPE")
    views = watched.value("imagesafety_batch_views_sum")
    taken = watched.value("imagesafety_upload_bytes_total")
    busy = watched.value("imagesafety_device_busy_seconds_total")
    await asyncio.gather(*(post(watched.gateway, BAD) for _ in range(5)))
    await post(watched.gateway, b"this is no picture")
    after = {(name, stage): watched.value(name, stage=stage) for name, stage in stages}
    failing = {"upload", "receive", "decode_wait", "decode"} - {"upload"}
    for (name, stage), count in after.items():
        more = 1 if stage == "upload" or (stage in failing and "image_" in name) else 0
        assert count - before[name, stage] == 5 + more, (name, stage)
    assert watched.value("imagesafety_images_total", outcome="scored") - scored == 5
    assert watched.value("imagesafety_images_total", reason="UNSUPPORTED_TYPE") - failed == 1
    assert watched.value("imagesafety_batch_views_sum") - views == 5
    assert watched.value("imagesafety_upload_bytes_total") - taken == 5 * len(BAD) + 18
    assert watched.value("imagesafety_device_busy_seconds_total") > busy
    for empty in ("uploads_in_flight", "images_in_flight", "image_bytes_in_flight"):
        assert watched.value(f"imagesafety_{empty}") == 0
    assert watched.value("imagesafety_queue_images") == 0


async def test_images_whose_call_is_out_of_time_are_counted_as_late(watched: Watched) -> None:
    def late() -> float:
        return watched.value("imagesafety_images_total", reason="DEADLINE_EXCEEDED")

    before = late()
    async with Caller(watched.inference) as caller:
        call = caller.stub.ScoreImage(timeout=1)
        await call.write(header())
        stream = caller.stub.ScoreImages(timeout=1)
        await stream.write(bulk_header())
        await stream.write(piece("half", BAD[:100]))
        for code in (call.code(), stream.code()):
            assert await code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.to_thread(wait_until, lambda: late() == before + 2, "both", 10)


async def test_images_whose_call_is_cancelled_are_counted(watched: Watched) -> None:
    def cancelled() -> float:
        return watched.value("imagesafety_images_total", outcome="cancelled")

    before = cancelled()
    async with Caller(watched.inference) as caller:
        stream = caller.stub.ScoreImages(timeout=60)
        await stream.write(bulk_header())
        await stream.write(piece("whole", BAD, last=True))
        assert await anext(bulk_answers(stream)) == ("whole", "scores")
        await stream.write(piece("half", BAD[:100]))
        in_flight = lambda: watched.value("imagesafety_images_in_flight") == 1  # noqa: E731
        await asyncio.to_thread(wait_until, in_flight, "the image", 10)
        stream.cancel()
        await asyncio.to_thread(wait_until, lambda: cancelled() == before + 1, "its end", 10)


def test_probes_hear_that_the_model_is_being_loaded() -> None:
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = ["--listen", address, "--metrics-listen", metrics, "--backend", "pytorch"]
    process = subprocess.Popen([sys.executable, "-m", "inference", *flags])
    heard: list[tuple[int, str]] = []

    def ready() -> bool:
        heard.append(fetch(f"http://{metrics}/readyz"))
        return heard[-1][0] == 200

    try:
        wait_until(ready, "readiness")
        assert (503, "the model is being loaded\n") in heard
        assert fetch(f"http://{metrics}/livez") == (200, "ok\n")
        assert fetch(f"http://{metrics}/elsewhere")[0] == 404
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert not is_alive(process.pid)


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_port_that_is_taken_is_one_line(watched: Watched, flag: str) -> None:
    taken = watched.inference_metrics.split("/")[2]
    flags = {"--listen": f"127.0.0.1:{free_port()}", "--backend": "pytorch"} | {flag: taken}
    command = [sys.executable, "-m", "inference", "--log-level", "error"]
    command += [part for pair in flags.items() for part in pair]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"inference: cannot listen on {taken}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("service", ["gateway", "inference"])
def test_an_exporter_that_is_not_known_is_one_line(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    done = subprocess.run([sys.executable, "-m", service], capture_output=True, text=True)
    wanted = "OTEL_TRACES_EXPORTER: 'jaeger' is none of otlp, console, none"
    assert (done.returncode, done.stderr) == (2, f"{service}: {wanted}\n")
