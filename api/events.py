"""Server-sent events (WHATWG HTML, "Server-sent events") over any asynchronous source of items."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.plain import plain
from pipeline.errors import LongleafError

MEDIA_TYPE = "text/event-stream"

Event = tuple[str, Any] | tuple[str, Any, int]
T = TypeVar("T")


class Stream(Response, Generic[T]):
    """Sends items as they come; an error that comes after the answer has begun is sent like an item.

    An item of None is a heartbeat and is sent as a comment, which clients ignore. ``last`` is sent at the
    end, whether it was reached or an error came.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        items: AsyncGenerator[T | None, None],
        encode: Callable[[T], bytes],
        encode_error: Callable[[LongleafError], bytes],
        last: bytes = b"",
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._items = items
        self._encode = encode
        self._encode_error = encode_error
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then every item, then the end."""
        async with aclosing(self._items) as items:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            try:
                async for item in items:
                    piece = b": still here\n\n" if item is None else self._encode(item)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except LongleafError as error:
                piece = self._encode_error(error)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self._last, "more_body": False})


class EventStream(Stream[Event]):
    """Events with names; an error is the event `error`."""

    def __init__(self, events: AsyncGenerator[Event | None, None]) -> None:
        super().__init__(events, lambda event: encode(*event), _error_event)


def encode(name: str, data: object, identity: int | None = None) -> bytes:
    """One event. JSON in ASCII has no line break, so one data line holds it. A client that comes back
    names the last ``identity`` it has seen as ``Last-Event-ID``."""
    head = "" if identity is None else f"id: {identity}\n"
    return f"{head}event: {name}\ndata: {json.dumps(plain(data))}\n\n".encode("ascii")


def _error_event(error: LongleafError) -> bytes:
    return encode("error", {**plain(error), "status": error.status})
