"""Promise 16: no address is fetched unless switched on, and then never a private one."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from promises import report
from small_library import client_of, small_settings

from api import fetching
from api.fetching import fetch, is_public
from api.sections import FetchSettings
from pipeline.errors import InvalidRequestError, LimitExceededError

ON = FetchSettings(enabled=True, ports=(80, 443, 8080), seconds=3)
DOCUMENTS = "/v1/collections/c/documents"

# What is asked to be fetched, in the many ways in which the same private places are written.
PRIVATE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://127.0.0.1./",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[2001:0:7f00:1::]/",
    "http://[2001:db8::1]/",
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://192.0.0.1/",
    "http://198.18.0.1/",
    "http://203.0.113.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
]
NOT_WEB = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://example.com/x",
    "gopher://example.com/_x",
    "dict://example.com/",
    "data:text/plain,x",
    "ldap://example.com/",
    "jar:http://example.com!/x",
    "//example.com/x",
    "/etc/passwd",
    "http:example.com",
    "http://",
    "http:///x",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:x/",
    "http://[::1",
    "",
    "http://exa mple.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com/\r\nHost: x",
    "http://exämple.com/",
    "http://１２７.0.0.1/",
    "http://example.com/" + "x" * 3000,
]


@contextmanager
def connections() -> Iterator[list[Any]]:
    """Every connection that this process tries to make meanwhile."""
    seen: list[Any] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "socket.connect":
            seen.append(arguments[1])

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        watching = False


def test_it_is_off(tmp_path: Path) -> None:
    with client_of(small_settings(tmp_path)) as client, connections() as seen:
        for url in [*PRIVATE[:5], "https://example.com/a.pdf"]:
            response = client.post(DOCUMENTS, json={"documents": [{"url": url}]})
            assert response.status_code == 422
            assert "fetching.enabled" in response.json()["remedy"]
        assert client.get("/v1/collections").json() == {"collections": []}
    assert seen == []


def test_private_places_are_refused_before_a_connection_is_made() -> None:
    wrong = []
    with connections() as seen:
        for url in [*PRIVATE, *NOT_WEB]:
            try:
                fetch(url, ON)
            except InvalidRequestError as error:
                assert error.remedy
                assert "secret" not in str(error)
            else:
                wrong.append(url)
    assert seen == []
    report(16, "addresses of private places or of other kinds", len(PRIVATE) + len(NOT_WEB), len(wrong))
    assert not wrong


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


def test_a_name_with_one_private_address_is_refused() -> None:
    for addresses in (["93.184.216.34", "10.0.0.1"], ["::1", "93.184.216.34"], []):
        with pytest.raises(InvalidRequestError, match="public network"), connections() as seen:
            fetch("http://mixed.example/", ON, resolve=lambda *_, found=addresses: found)
        assert seen == []


def test_a_name_that_changes_its_meaning_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: public when it is checked, this machine a moment later."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[Any] = []

    def connect(address: Any, **_: Any) -> Any:
        asked.append(address)
        raise OSError("nobody is there")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(InvalidRequestError):
        fetch("http://rebinding.example/", ON, resolve=lambda *_: next(answers))
    assert asked == [("93.184.216.34", 80)]


class Site(BaseHTTPRequestHandler):
    """A site on this machine that stands for a public one."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            body = b"The mill stands by the river." if self.path != "/large" else b"x" * 5000
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address. The site's own port at 127.0.0.1 counts as public, and nothing else private does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def allowed(site: str, **more: Any) -> FetchSettings:
    return FetchSettings(enabled=True, ports=(80, int(site.rpartition(":")[2])), seconds=3, **more)


def test_what_is_public_is_fetched(site: str) -> None:
    found = fetch(f"{site}/deeds/mill.txt?x=1", allowed(site))
    assert (found.name, found.data) == ("mill.txt", b"The mill stands by the river.")
    assert found.media_type == "text/plain"
    assert fetch(f"{site}/to/{site}/to//b.txt", allowed(site)).name == "b.txt"


@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/to/http://10.0.0.1/",
        "/to/file:///etc/passwd",
        "/to/http://[::1]/",
        "/to/to/to/to/to/x",
        "/to/",
    ],
)
def test_redirects_and_failures_are_checked_like_first_addresses(site: str, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        fetch(site + path, allowed(site, redirects=2))


def test_size_and_hosts_are_limited(site: str) -> None:
    with pytest.raises(LimitExceededError):
        fetch(f"{site}/large", allowed(site, max_bytes=1000))
    with pytest.raises(InvalidRequestError, match="host"):
        fetch(f"{site}/x", allowed(site, hosts=("example.com",)))


def test_an_upload_by_address_is_a_document(site: str, tmp_path: Path) -> None:
    settings = small_settings(tmp_path).model_copy(update={"fetching": allowed(site)})
    with client_of(settings) as client:
        made = client.post(
            DOCUMENTS, json={"documents": [{"url": f"{site}/mill.txt", "metadata": {"year": 1869}}]}
        )
        assert made.status_code == 200, made.text
        record = client.get(f"{DOCUMENTS}/{site}/mill.txt").json()
        assert (record["metadata"]["year"], record["source_name"]) == (1869, "mill.txt")
        both = {"documents": [{"url": site, "text": "x"}]}
        assert client.post(DOCUMENTS, json=both).status_code == 422
        assert client.post(DOCUMENTS, json={"documents": [{}]}).status_code == 422
        gone = client.post(DOCUMENTS, json={"documents": [{"url": f"{site}/missing"}]})
        assert gone.status_code == 422
        assert "404" in gone.json()["detail"]
