"""Promise 9: authentication happens before the body is read, and every route needs it except health."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from live_server import serving
from promises import cases, report
from small_library import small_settings

from api.app import create_app
from api.build import open_longleaf
from api.keys import KeyRing
from api.listening import LimitedProtocol
from api.security import PUBLIC_PATHS

BODY_BYTES = 100 * 1024 * 1024
MOST_READ_BYTES = 64 * 1024


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    settings = small_settings(tmp_path)
    KeyRing(settings.data).create("test")
    with open_longleaf(settings) as longleaf, serving(longleaf) as url:
        yield url


def test_a_large_body_without_a_key_is_not_read(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    read: list[int] = []
    take = LimitedProtocol.data_received

    def counted(self: Any, data: bytes) -> None:
        read.append(len(data))
        take(self, data)

    monkeypatch.setattr(LimitedProtocol, "data_received", counted)
    tried = cases(6, 100)
    worst = 0
    for i in range(tried):
        read.clear()
        key = ("", "Authorization: Bearer no.key\r\n", "Authorization: Basic eDp5\r\n")[i % 3]
        kind = ("multipart/form-data; boundary=x", "application/json")[i % 2]
        head = (
            "POST /v1/collections/books/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"{key}Content-Type: {kind}\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        )
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as raw:
            raw.sendall(head.encode())
            # As fast as it goes, until the server has had enough.
            with contextlib.suppress(ConnectionError):
                for _ in range(BODY_BYTES // 65536):
                    raw.sendall(b"x" * 65536)
            with contextlib.suppress(ConnectionError):
                assert raw.recv(4096).startswith(b"HTTP/1.1 401")
        worst = max(worst, sum(read))
    assert worst - len(head) <= MOST_READ_BYTES
    assert list(spool.iterdir()) == []
    report(9, f"bad key with a 100 MB body read at most {worst:,} bytes", tried, 0)


def forms(path: str) -> Iterator[bytes]:
    """Ways to write a path that a router could take for the same."""
    plain = path.encode()
    yield plain
    yield plain + b"/"
    yield b"/" + plain
    yield plain.replace(b"/", b"//", 1)
    yield b"".join(b"%%%02x" % byte if i == 1 else bytes([byte]) for i, byte in enumerate(plain))
    yield plain.replace(b"/v1", b"/%76%31").replace(b"/metrics", b"/%6detrics")
    yield b"/livez/.." + plain
    yield b"/./" + plain.lstrip(b"/")
    yield plain + b"?x=/livez"
    yield plain + b"%2f..%2flivez"
    yield plain.upper()
    yield plain + b";/livez"
    yield plain + b"%00"


def test_every_route_wants_a_key(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    ring = KeyRing(settings.data)
    good, revoked = ring.create("good"), ring.create("revoked")
    ring.revoke(revoked.partition(".")[0])
    app = create_app(settings)
    identity, _, secret = good.partition(".")
    credentials: list[list[tuple[bytes, bytes]]] = [
        [],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer " + revoked.encode())],
        [(b"authorization", f"Bearer {identity}.{secret[:-1]}".encode())],
        [(b"authorization", f"Bearer {identity}.{secret}x".encode())],
        [(b"authorization", f"Bearer .{secret}".encode())],
        [(b"authorization", f"Basic {good}".encode())],
        [(b"authorization", good.encode())],
        [(b"x-api-key", good.encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer no.key"), (b"authorization", f"Bearer {good}".encode())],
    ]
    paths = {
        (
            method,
            path.replace("{collection}", "books")
            .replace("{document_id}", "lease")
            .replace("{model}", "books"),
        )
        for path, item in app.openapi()["paths"].items()
        for method in item
    } | {("get", "/openapi.json"), ("get", "/nothing"), ("post", "/v2/rerank")}
    wanted = [
        (m, p, f, c) for m, p in sorted(paths) if p not in PUBLIC_PATHS for f in forms(p) for c in credentials
    ]
    statuses = asyncio.run(_ask_all(app, wanted))
    wrong = [(m, f, c) for (m, _, f, c), status in zip(wanted, statuses, strict=True) if status != 401]
    report(9, "routes x forms of their path x credentials", len(wanted), len(wrong))
    assert not wrong


async def _ask_all(app: Any, wanted: list[Any]) -> list[int]:
    return [await _ask(app, method, form, headers) for method, _, form, headers in wanted]


async def _ask(app: Any, method: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    path, _, query = target.partition(b"?")
    status = 0

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return status
