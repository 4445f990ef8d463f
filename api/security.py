"""The gate in front of the application, in plain ASGI so that it stands before any byte of a body.

In order: who asks (a bearer key, or in single-user mode only this machine by its own name), how much
they say they will send, then while the application runs, how much they do send and how fast.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.callers import IN_SCOPE, Caller
from api.envelopes import COHERE_PATHS, dressed
from api.keys import KeyRing
from api.problems import ProblemResponse, Refusal, http_problem, problem_of
from api.quotas import Quotas
from api.sections import ServerSettings
from pipeline.errors import ConfigurationError, LimitExceededError, LongleafError, UnavailableError

PUBLIC_PATHS = frozenset({"/livez", "/readyz"})
MANY_TEXTS_PATHS = frozenset({"/v1/embeddings", *COHERE_PATHS})
_CLOSE = {"Connection": "close"}
STRICT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether an address or host name can only mean this machine."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_open_door(settings: ServerSettings, keys: KeyRing) -> None:
    """Raise ConfigurationError when others could reach the service and nothing would ask for a key."""
    if not is_loopback(settings.host) and not keys.required:
        raise ConfigurationError(
            f"Listening on {settings.host!r} would let anyone on the network in: no key exists yet.",
            remedy="Create one with `longleaf keys create NAME`, or listen on 127.0.0.1.",
        )


class ClientTooSlowError(ConnectionError):
    """A client stopped reading its answer; the connection is dropped and nobody is told."""


@dataclass(slots=True)
class _Body:
    """What has arrived of one request's body."""

    bytes: int = 0
    complete: bool = False


class Gate:
    """Wraps the application. See the module's first lines for what it checks."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings, keys: KeyRing, quotas: Quotas) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._quotas = quotas
        self._arriving_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at the door, or let the request through with its body and its answer watched."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = self._watched_send(send)
        headers = Headers(scope=scope)
        try:
            refusal = await self._identity(scope, headers) or self._size(scope, headers)
        except LongleafError as error:  # the key file cannot be read, or the key asks too often
            refusal = self._closing(error)
        if refusal:
            await dressed(refusal, scope["path"])(scope, receive, send)
            return
        begun = False
        body = _Body()

        async def noted_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(
                scope, self._watched_receive(receive, self._limit(scope, headers), body), noted_send
            )
        except ClientTooSlowError:
            return
        except HTTPException as error:  # of the body, and read where no route answers for it
            if begun:
                return
            await dressed(http_problem(error), scope["path"])(scope, receive, send)
        finally:
            self._arriving_bytes -= body.bytes

    async def _identity(self, scope: Scope, headers: Headers) -> ProblemResponse | None:
        """Put the caller into the scope, or say why there is none."""
        if scope["path"] in PUBLIC_PATHS:
            local = not self._keys.required and not _single_user(scope, headers)
            scope[IN_SCOPE] = Caller() if local else self._known(headers)
            return None
        if not self._keys.required:
            caller: Caller | None = Caller()
            if refusal := _single_user(scope, headers):
                return refusal
        else:
            caller = self._known(headers)
        if caller is not None:
            await self._quotas.request(caller.tenant, caller.key)
            scope[IN_SCOPE] = caller
            return None
        return ProblemResponse(
            401,
            "unauthorized",
            "A valid key is needed.",
            remedy="Send `Authorization: Bearer <key>`; `longleaf keys create NAME` makes one.",
            headers={**_CLOSE, "WWW-Authenticate": 'Bearer realm="longleaf"'},
        )

    def _known(self, headers: Headers) -> Caller | None:
        kind, _, presented = headers.get("authorization", "").partition(" ")
        key = self._keys.accepts(presented.strip()) if kind.lower() == "bearer" else None
        return None if key is None else Caller.of(key)

    def _limit(self, scope: Scope, headers: Headers) -> int:
        if scope["path"] in MANY_TEXTS_PATHS:
            return self._settings.max_json_bytes
        if not scope["path"].endswith("/documents"):
            return self._settings.max_query_bytes
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        files = media_type == "multipart/form-data"
        return self._settings.max_body_bytes if files else self._settings.max_json_bytes

    def _size(self, scope: Scope, headers: Headers) -> ProblemResponse | None:
        length = headers.get("content-length", "0")
        limit = self._limit(scope, headers)
        if not (length.isascii() and length.isdigit()):
            return ProblemResponse(400, "bad_request", "Content-Length is not a number.", headers=_CLOSE)
        if len(length) > 18 or int(length) > limit:
            return self._closing(_too_large(length[:19], limit))
        return None

    def _closing(self, error: LongleafError) -> ProblemResponse:
        """The answer to an error, after which the rest of the body is not read."""
        problem = problem_of(error, self._settings.retry_after_seconds)
        problem.headers.update(_CLOSE)
        return problem

    def _watched_receive(self, receive: Receive, limit: int, body: _Body) -> Receive:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._settings.body_seconds

        async def watched() -> Message:
            if body.complete:
                return await receive()
            patience = min(self._settings.idle_seconds, deadline - clock())
            try:
                async with asyncio.timeout(max(patience, 0.0)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The body did not arrive in time.", headers=_CLOSE) from None
            size = len(message.get("body", b""))
            body.bytes += size
            self._arriving_bytes += size
            body.complete = not message.get("more_body", False)
            if body.bytes > limit:
                raise Refusal(self._closing(_too_large(f"over {limit}", limit)))
            most = self._settings.max_arriving_bytes
            if self._arriving_bytes > max(most, body.bytes):
                busy = UnavailableError(
                    f"The bodies that are arriving have over {most} bytes together.",
                    remedy="Try again later, or raise server.max_arriving_bytes.",
                )
                raise Refusal(self._closing(busy))
            return message

        return watched

    def _watched_send(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in STRICT_HEADERS.items():
                    headers.setdefault(name, value)
            try:
                async with asyncio.timeout(self._settings.idle_seconds):
                    await send(message)
            except TimeoutError:
                raise ClientTooSlowError from None

        return watched


def _too_large(size: str, limit: int) -> LimitExceededError:
    return LimitExceededError(
        f"The body has {size} bytes; at most {limit} are taken.",
        remedy="Send less at once, or raise server.max_body_bytes, max_json_bytes or max_query_bytes.",
    )


def _single_user(scope: Scope, headers: Mapping[str, str]) -> ProblemResponse | None:
    """No key exists: only this machine may ask, under its own name, so that no web page can point a
    name of its own here (DNS rebinding) or post from another origin."""
    client = scope.get("client")
    if client and not is_loopback(client[0]):
        return _forbidden("Only this machine may ask while no key exists.")
    if not is_loopback(_hostname(f"//{headers.get('host', '')}")):
        return _forbidden("The Host header is not a name of this machine.")
    origin = headers.get("origin")
    if origin and not is_loopback(_hostname(origin)):
        return _forbidden("The request comes from a page of another origin.")
    return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bracket without its pair
        return ""


def _forbidden(detail: str) -> ProblemResponse:
    remedy = "Create a key with `longleaf keys create NAME` and send it as `Authorization: Bearer <key>`."
    return ProblemResponse(403, "forbidden", detail, remedy=remedy, headers=_CLOSE)
