"""The server under the application: uvicorn, with the deadlines and limits of connections it lacks.

Deadlines for bodies and for clients that do not read are kept by the gate (:mod:`api.security`); what
comes before there is a request, its line and headers, only the protocol sees.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.lingering import LingeringTransport
from api.problems import ProblemResponse
from api.sections import ServerSettings
from api.security import STRICT_HEADERS
from api.service import Service

MAX_HEAD_BYTES = 64 * 1024
RECEIVE_BYTES = 32 * 1024
LEAVE_SECONDS = 4  # for the last words of answers that were told to end, above their time to end


def server_of(app: FastAPI, settings: ServerSettings) -> uvicorn.Server:
    """A server for the application; whoever runs it gives it a listening socket.

    When it is told to stop it takes no more connections, lets answers end for ``shutdown_seconds``, then
    has them end, and cancels what is left some seconds later.
    """
    config = uvicorn.Config(
        app,
        http=type("Protocol", (LimitedProtocol,), {"limits": settings}),
        ws="none",
        server_header=False,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds + LEAVE_SECONDS,
    )
    return StoppingServer(config, app, settings.shutdown_seconds)


class StoppingServer(uvicorn.Server):  # type: ignore[misc]
    """Tells the application's service when it begins to stop, and when its patience has ended: what is
    cut short is then answered in good order, which a cancelled request may not be."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, patience_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._patience_seconds = patience_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, in order."""
        service: Service = self._app.state.service
        service.stopping.set()
        end = asyncio.get_running_loop().call_later(self._patience_seconds, service.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()


class LimitedProtocol(H11Protocol):  # type: ignore[misc]
    """What uvicorn does, with ``head_seconds`` for each request's head and ``max_connections``."""

    limits: ClassVar[ServerSettings]

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection if there is room for it."""
        # So much is read at a time: before the gate has answered a head, no more than this of a body.
        transport.max_size = RECEIVE_BYTES  # type: ignore[attr-defined]
        # An answer's head and body go out in two pieces. The second would wait for the client to confirm the
        # first, 40 ms as a rule; asyncio knows of sockets made with IPPROTO_TCP only, and others make none.
        if connection := transport.get_extra_info("socket"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lingering = LingeringTransport(transport, self._unread)
        super().connection_made(self._lingering)
        if len(self.connections) > self.limits.max_connections:
            transport.abort()
            return
        self._watch()

    def _unread(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def data_received(self, data: bytes) -> None:
        """Go on reading."""
        if self._lingering.swallow(data):
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        self._lingering.finish()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """A head that has begun, or the first of a connection, has its time; a complete one has not."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._rest()
        elif self._late is None:
            self._late = self.loop.call_later(self.limits.head_seconds, self._expire)

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _expire(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self._refuse(
                ProblemResponse(
                    408,
                    "request_timeout",
                    f"The request's head did not arrive within {self.limits.head_seconds:g} seconds.",
                    remedy="Send the request without pauses.",
                )
            )

    def send_400_response(self, msg: str) -> None:
        """Instead of uvicorn's plain text."""
        self._refuse(
            ProblemResponse(
                400, "bad_request", "This is not a valid HTTP request.", remedy="Send RFC 9112 HTTP/1.1."
            )
        )

    def _refuse(self, problem: ProblemResponse) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is under way, or was cut
            self.transport.abort()
            return
        problem.headers.update(STRICT_HEADERS)
        headers: list[tuple[bytes, bytes]] = [*problem.raw_headers, (b"connection", b"close")]
        parts: list[Any] = [
            h11.Response(status_code=problem.status_code, headers=headers),
            h11.Data(data=bytes(problem.body)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(part) for part in parts))
        self.transport.close()
