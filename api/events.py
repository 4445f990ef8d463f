"""Server-sent events (WHATWG HTML, "Server-sent events") over any asynchronous source of items."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.plain import plain
from pipeline.errors import LongleafError

MEDIA_TYPE = "text/event-stream"

Event = tuple[str, Any]


class EventStream(Response):
    """Sends events as they come; an error that comes after the answer has begun is an event too.

    An item of None is a heartbeat and is sent as a comment, which clients ignore.
    """

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[Event | None, None]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then every event, then the end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    piece = encode(*event) if event else b": still here\n\n"
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except LongleafError as error:
                piece = encode("error", {**plain(error), "status": error.status})
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def encode(name: str, data: object) -> bytes:
    """One event. JSON in ASCII has no line break, so one data line holds it."""
    return f"event: {name}\ndata: {json.dumps(plain(data))}\n\n".encode("ascii")
