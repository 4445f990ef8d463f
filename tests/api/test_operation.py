"""What operators see: metrics, logs, traces, the audit log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from small_library import client_of, fill
from starlette.testclient import TestClient

from api.audit import AuditLog
from api.keys import KeyRing
from api.logs import configure_logging
from api.metrics import Metrics
from api.sections import LoggingSettings, Settings
from api.tracing import Tracing
from pipeline.records import derived_id

BOOKS = "/v1/collections/books"


def samples(text: str) -> dict[str, float]:
    """Value by name and sorted labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client.get("/metrics").text).get(f"{name}{sorted(labels.items())}", 0.0)


def test_metrics_count_what_happens(library: TestClient) -> None:
    search = {"method": "POST", "route": "/v1/collections/{collection}/search", "status": "200"}
    assert value(library, "longleaf_request_seconds_count", **search) == 0
    library.post(f"{BOOKS}/search", json={"query": "lease"}).raise_for_status()
    library.post(f"{BOOKS}/answer", json={"query": "Who pays forty pounds?"}).raise_for_status()
    library.post("/v1/embeddings", json={"model": "hashing", "input": "two words"}).raise_for_status()
    library.get(f"{BOOKS}/documents/no/such")
    library.get("/wp-admin/canary")
    assert value(library, "longleaf_request_seconds_count", **search) == 1
    for stage in ("embed", "search", "rank", "retrieve", "extract"):
        assert value(library, "longleaf_stage_seconds_count", stage=stage) >= 1, stage
    assert value(library, "longleaf_ingestion_seconds_count", stage="embedding") == 3
    assert value(library, "longleaf_documents_total", status="created") == 3
    assert value(library, "longleaf_tokens_total", kind="embedded") == 2
    assert value(library, "longleaf_answers_total", kind="extractive") == 1
    assert value(library, "longleaf_queue_depth", kind="search") == 0
    text = library.get("/metrics").text
    assert "wp-admin" not in text
    assert 'route="unrouted",status="404"' in text
    assert 'route="/v1/collections/{collection}/documents/{document_id:path}"' in text
    assert "process_resident_memory_bytes" in text


def test_metrics_are_for_operators(client: TestClient, settings: Settings) -> None:
    ring = KeyRing(settings.data)
    keys = {access: ring.create("x", access=access) for access in ("read", "write", "operate")}
    seen = {
        access: client.get("/metrics", headers={"authorization": f"Bearer {key}"}).status_code
        for access, key in keys.items()
    }
    assert seen == {"read": 403, "write": 403, "operate": 200}
    assert client.get("/metrics").status_code == 401


def test_a_request_has_an_id_that_log_and_answer_share(
    shelf: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "longleaf.requests"):
        made = shelf.get("/v1/collections").headers["x-request-id"]
        kept = shelf.get("/v1/collections", headers={"x-request-id": "from-proxy_1"}).headers["x-request-id"]
        forged = shelf.get("/v1/collections", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert len(made) == 32
    assert kept == "from-proxy_1"
    assert forged != "a b\tc"
    assert [record.request_id for record in caplog.records] == [made, kept, forged]  # type: ignore[attr-defined]
    assert {record.route for record in caplog.records} == {"/v1/collections"}  # type: ignore[attr-defined]


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("longleaf")
    before = root.handlers, root.level, own.level
    yield
    root.handlers, level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


@pytest.mark.usefixtures("logged")
def test_a_log_line_is_json_without_words_of_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings(level="debug", format="json"))
    try:
        raise ValueError("canary in the words")
    except ValueError:
        logging.getLogger("longleaf.http").exception("it %s", "failed", extra={"status": 500})
    logging.getLogger("httpx").debug("canary of a library")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=KeyError("canary"))
    first, second = capsys.readouterr().err.splitlines()
    line = json.loads(first)
    assert (line["event"], line["level"], line["status"]) == ("it failed", "error", 500)
    assert line["exception"] == "ValueError"
    assert "test_operation.py" in line["frames"][-1]
    assert "canary" not in first + second
    configure_logging(LoggingSettings(format="console"))
    logging.getLogger("longleaf.http").info("for people")
    assert "for people" in capsys.readouterr().err


def test_the_audit_log_names_who_changed_what_and_no_content(settings: Settings) -> None:
    ring = KeyRing(settings.data)
    key = ring.create("editor", tenant="acme")
    headers = {"authorization": f"Bearer {key}"}
    with client_of(settings) as client:
        client.headers.update(headers)
        fill(client)
        client.post(f"{BOOKS}/search", json={"query": "lease"}).raise_for_status()
        client.delete(f"{BOOKS}/documents/lease").raise_for_status()
        client.get(f"{BOOKS}/documents", headers={"authorization": "Bearer no.key"})
    text = (settings.data / "audit.jsonl").read_text()
    upload, deletion, refusal = map(json.loads, text.splitlines())
    assert upload["collection"] == derived_id("acme", "books")
    assert (deletion["method"], deletion["status"], deletion["tenant"]) == ("DELETE", 204, "acme")
    assert deletion["document"] == derived_id("acme", "books", "lease")
    assert deletion["key"] == key.partition(".")[0]
    assert (refusal["status"], refusal["key"]) == (401, "")
    assert not any(word in text for word in ("lease", "books", key.partition(".")[2], "no.key"))
    assert (settings.data / "audit.jsonl").stat().st_mode & 0o077 == 0


def test_the_audit_log_stays_within_its_size(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=1024)
    for i in range(100):
        log.note(number=i)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1"]
    assert all(file.stat().st_size <= 1024 for file in files)
    kept = [json.loads(line)["number"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert kept == list(range(kept[0], 100)), "the newest are kept, none is lost between"


def test_traces_follow_the_conventions(library: TestClient) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = library.app.state.service.telemetry  # type: ignore[attr-defined]
    telemetry.tracing = Tracing(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    library.post(f"{BOOKS}/search", json={"query": "canary lease"}, headers={"traceparent": parent})
    library.post(f"{BOOKS}/answer", json={"query": "canary lease", "stream": True})
    library.post("/v1/embeddings", json={"model": "hashing", "input": "canary"})
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "retrieval search", "POST /v1/collections/{collection}/search",
        "chat none", "POST /v1/collections/{collection}/answer",
        "embeddings hashing", "POST /v1/embeddings",
    ]  # fmt: skip
    for inner, outer in zip(spans[::2], spans[1::2], strict=True):
        assert inner.parent and inner.parent.span_id == outer.context.span_id
        assert outer.attributes["http.response.status_code"] == 200
        assert inner.attributes["gen_ai.provider.name"] == "longleaf"
        assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time
    assert spans[1].context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert spans[2].attributes["gen_ai.operation.name"] == "chat"
    assert spans[4].attributes["gen_ai.usage.input_tokens"] == 1
    assert "canary" not in "".join(span.to_json() for span in spans)


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
    ids=str,
)
def test_traces_are_switched_on_by_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on: bool
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    tracing = Tracing.from_environment()
    assert (tracing._provider is not None) == on
    if on:
        assert tracing._provider.resource.attributes["service.name"] == "longleaf"
    tracing.close()


def test_what_an_answer_tells_of_tokens_is_counted() -> None:
    metrics = Metrics()
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "cached_prompt_tokens": 60, "drafted_tokens": 12}
    metrics.answered(
        "composed", {"first_token": 0.2, "generate": 1.0}, {**usage, "accepted_tokens": 9, "decoding": "x"}
    )
    seen = samples(metrics.exposition().decode())
    wanted = {
        ("longleaf_kv_tokens_total", "event", "requested"): 100,
        ("longleaf_kv_tokens_total", "event", "hit"): 60,
        ("longleaf_draft_tokens_total", "outcome", "drafted"): 12,
        ("longleaf_draft_tokens_total", "outcome", "accepted"): 9,
        ("longleaf_tokens_total", "kind", "completion"): 20,
        ("longleaf_stage_seconds_sum", "stage", "decode"): 1.0,
        ("longleaf_stage_seconds_sum", "stage", "first_token"): 0.2,
    }
    assert {key: seen[f"{key[0]}{[key[1:]]}"] for key in wanted} == wanted
