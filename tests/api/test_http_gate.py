"""The gate, around an application that says what it received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.keys import KeyRing
from api.quotas import Quotas
from api.sections import QuotaSettings, ServerSettings
from api.security import Gate, is_loopback, refuse_open_door
from pipeline.errors import ConfigurationError

SETTINGS = ServerSettings(
    max_query_bytes=1024, max_json_bytes=2048, max_body_bytes=4096, idle_seconds=0.2, body_seconds=0.5
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body, then says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Door:
    """Asks the gate one request and keeps what came back and how much was read."""

    def __init__(
        self,
        root: Path,
        settings: ServerSettings = SETTINGS,
        app: Any = echo,
        quotas: QuotaSettings | None = None,
    ) -> None:
        self.root = root
        self.keys = KeyRing(root)
        self.gate = Gate(app, settings=settings, keys=self.keys, quotas=Quotas(quotas or QuotaSettings()))
        self.read = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def ask(
        self,
        *,
        path: str = "/v1/collections",
        headers: dict[str, str] | None = None,
        client: str = "127.0.0.1",
        pieces: tuple[bytes, ...] = (b"",),
        pause: float = 0.0,
        reading: float = 0.0,
    ) -> int:
        async def body() -> AsyncIterator[dict[str, Any]]:
            for i, piece in enumerate(pieces):
                await asyncio.sleep(pause)
                self.read += len(piece)
                yield {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}

        messages = body()

        async def send(message: dict[str, Any]) -> None:
            await asyncio.sleep(reading)
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            else:
                self.body += message["body"]

        names = {"host": "127.0.0.1:8000", **(headers or {})}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "client": (client, 50000),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in names.items()],
        }
        asyncio.run(self.gate(scope, lambda: anext(messages), send))  # type: ignore[arg-type]
        return self.status


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_asked_for_before_anything_is_read(door: Door) -> None:
    key = door.keys.create("a")
    huge = tuple(b"x" * 1000 for _ in range(100))
    for headers in (
        {},
        bearer("no.key"),
        bearer(key + "x"),
        {"authorization": key},
        {"authorization": "Bearer"},
    ):
        assert door.ask(headers=headers, pieces=huge) == 401
        assert door.headers["www-authenticate"].startswith("Bearer")
        assert door.headers["connection"] == "close"
    assert door.read == 0
    assert door.ask(headers=bearer(key), pieces=(b"abc",)) == 200
    assert door.body.endswith(b"3")


@pytest.mark.parametrize(
    "path", ["/livez/", "//livez", "/LIVEZ", "/livez/..", "/v1/../livez", "/openapi.json", "/"]
)
def test_only_health_is_open(door: Door, path: str) -> None:
    door.keys.create("a")
    assert door.ask(path=path) == 401
    assert door.ask(path="/livez") == 200


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("10.0.0.7", {}),
        ("127.0.0.1", {"host": "evil.example"}),
        ("127.0.0.1", {"host": "localhost.evil.example"}),
        ("127.0.0.1", {"host": ""}),
        ("127.0.0.1", {"host": "[::1"}),
        ("127.0.0.1", {"origin": "https://evil.example"}),
        ("127.0.0.1", {"origin": "null"}),
    ],
)
def test_without_a_key_only_this_machine_is_served(door: Door, client: str, headers: dict[str, str]) -> None:
    assert door.ask(client=client, headers=headers) == 403
    assert b"longleaf keys create" in door.body


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("127.0.0.1", {}),
        ("::1", {"host": "[::1]:8000"}),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://localhost:3000"}),
    ],
)
def test_this_machine_needs_no_key(door: Door, client: str, headers: dict[str, str]) -> None:
    assert door.ask(client=client, headers=headers) == 200


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("path", "content_type", "limit"),
    [("/search", "", 1024), ("/search", FORM, 1024), ("/documents", "", 2048), ("/documents", FORM, 4096)],
)
def test_the_size_is_checked_as_declared(door: Door, path: str, content_type: str, limit: int) -> None:
    headers = {"content-type": content_type}
    assert door.ask(path=path, headers={**headers, "content-length": str(limit + 1)}) == 413
    assert str(limit + 1).encode() in door.body
    assert door.read == 0
    assert door.ask(path=path, headers={**headers, "content-length": str(limit)}) == 200


@pytest.mark.parametrize(
    ("length", "status"),
    [("9" * 400, 413), ("-1", 400), ("1e3", 400), ("abc", 400), ("", 400), ("\u00b2", 400)],
)
def test_a_strange_length_is_refused(door: Door, length: str, status: int) -> None:
    assert door.ask(headers={"content-length": length}) == status
    assert door.read == 0


def test_a_damaged_key_file_lets_nobody_in(door: Door) -> None:
    door.keys.create("a")
    (door.root / "keys.json").write_text("[{]")
    assert door.ask() == 503
    assert b"damaged" in door.body


def test_more_than_declared_is_cut_off(door: Door) -> None:
    assert door.ask(pieces=tuple(b"x" * 300 for _ in range(100))) == 413
    assert door.read <= 1024 + 300
    assert "connection" in door.headers
    streamed, door.body = json.loads(door.body), b""
    door.ask(headers={"content-length": "30000"})
    declared = json.loads(door.body)
    assert streamed["code"] == declared["code"] == "limit_exceeded"
    assert streamed["remedy"] == declared["remedy"] != ""


def test_too_much_arriving_at_once_is_refused_in_the_words_of_any_overload(tmp_path: Path) -> None:
    door = Door(tmp_path, SETTINGS.model_copy(update={"max_arriving_bytes": 1024}))
    door.gate._arriving_bytes = 1000
    assert door.ask(pieces=(b"x" * 300,)) == 503
    problem = json.loads(door.body)
    assert (problem["code"], door.headers["connection"]) == ("unavailable", "close")
    assert "max_arriving_bytes" in problem["remedy"]
    assert int(door.headers["retry-after"]) > 0


@pytest.mark.parametrize("pause", [0.3, 0.15])
def test_a_dripping_body_is_cut_off(door: Door, pause: float) -> None:
    """Once for a pause over the longest allowed, once for short pauses that never end."""
    assert door.ask(pieces=tuple(b"x" for _ in range(100)), pause=pause) == 408
    assert door.headers["connection"] == "close"


def test_a_client_that_does_not_read_is_dropped(door: Door) -> None:
    door.ask(reading=0.5)
    assert door.status == 0


def test_answers_carry_strict_headers(door: Door) -> None:
    door.ask()
    assert door.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in door.headers["content-security-policy"]


def test_beyond_this_machine_a_key_must_exist(tmp_path: Path) -> None:
    keys = KeyRing(tmp_path)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com", ""):
        with pytest.raises(ConfigurationError, match="no key exists") as caught:
            refuse_open_door(ServerSettings(host=host), keys)
        assert "longleaf keys create" in caught.value.remedy
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)
        refuse_open_door(ServerSettings(host=host), keys)
    keys.create("a")
    refuse_open_door(ServerSettings(host="0.0.0.0"), keys)
