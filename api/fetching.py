"""Documents by address: off unless switched on, and then from public addresses only.

A name is resolved once, every address it has must be public, and the connection goes to the address that
was checked, so that a name cannot mean another machine a moment later (DNS rebinding). Each redirect is
checked like a first address. No cookie, no proxy, no credentials.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from api.sections import FetchSettings
from api.version import VERSION
from pipeline.errors import InvalidRequestError, LimitExceededError

Resolve = Callable[[str, int], list[str]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_PIECE_BYTES = 64 * 1024
_PAUSE_SECONDS = 10.0
_MAX_URL_CHARS = 2_000
# IPv4 addresses in IPv6 clothes (RFC 6052): reached through a translator they are those of IPv4.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at an address: its last part as a name, its bytes, and what the server calls them."""

    name: str
    data: bytes
    media_type: str | None


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address can only be that of a machine on the public network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def fetch(url: str, settings: FetchSettings, *, resolve: Resolve = resolve) -> Fetched:
    """What is at an address.

    Raises InvalidRequestError when fetching is off, for an address that is not public or not HTTP, and
    when it cannot be had; LimitExceededError when it is too large or takes too long.
    """
    if not settings.enabled:
        raise InvalidRequestError(
            "Documents by address are not taken.", remedy="Send the file, or switch fetching.enabled on."
        )
    deadline = time.monotonic() + settings.seconds
    for _ in range(settings.redirects + 1):
        parts = _checked(url, settings)
        connection = _connected(parts, settings, resolve, deadline)
        try:
            with closing(connection), _asked(connection, parts) as response:
                if response.status in _REDIRECTS:
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status != 200:
                    raise _refused(f"{parts.hostname} answered {response.status}", "Check the address.")
                data = _read(response, settings, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise _refused(f"{parts.hostname}: {type(error).__name__}", "Try again later.") from error
        media_type = response.headers.get_content_type() if "Content-Type" in response.headers else None
        name = unquote(parts.path.rpartition("/")[2]) or str(parts.hostname)
        return Fetched(name, data, media_type)
    raise _refused(f"more than {settings.redirects} redirects", "Give the last address.")


def _checked(url: str, settings: FetchSettings) -> SplitResult:
    if len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _refused("the address is not a plain URL", "Write it as RFC 3986 has it, percent-encoded.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("the address is not a URL", "Write it as https://host/path.") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _refused(f"its scheme is {parts.scheme[:20]!r}", "Only http and https are fetched.")
    if parts.username is not None or parts.password is not None:
        raise _refused("it has a user name", "Credentials are not taken.")
    if (port or _PORTS[parts.scheme]) not in settings.ports:
        raise _refused(f"its port is {port}", f"Ports are {', '.join(map(str, settings.ports))}.")
    if settings.hosts and parts.hostname not in settings.hosts:
        raise _refused(f"its host is {parts.hostname[:80]!r}", "fetching.hosts lists those allowed.")
    return parts


def _connected(
    parts: SplitResult, settings: FetchSettings, resolve: Resolve, deadline: float
) -> http.client.HTTPConnection:
    host = str(parts.hostname)
    port = parts.port or _PORTS[parts.scheme]
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise _refused(f"{host[:80]!r} has no address", "Check the name.") from error
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refused(f"{host[:80]!r} is not on the public network", "Send the file instead.")
    patience = max(0.1, min(_PAUSE_SECONDS, deadline - time.monotonic()))
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    try:
        connection.sock = socket.create_connection((addresses[0], port), timeout=patience)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    except OSError as error:
        connection.close()
        raise _refused(f"{host[:80]!r} cannot be reached", "Try again later.") from error
    return connection


def _asked(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": f"longleaf/{VERSION}", "Accept": "*/*", "Accept-Encoding": "identity"}
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _read(response: http.client.HTTPResponse, settings: FetchSettings, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := response.read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > settings.max_bytes:
            raise LimitExceededError(
                f"What is at the address has more than {settings.max_bytes} bytes.",
                remedy="Raise fetching.max_bytes.",
            )
        if time.monotonic() > deadline:
            raise LimitExceededError(
                f"Fetching took more than {settings.seconds:g} seconds.", remedy="Raise fetching.seconds."
            )
    return b"".join(pieces)


def _refused(why: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"The address cannot be fetched: {why}.", remedy=remedy)
