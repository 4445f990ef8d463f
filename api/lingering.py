"""Closing a connection so that the client can still read why.

Whoever closes while bytes are unread sends a reset, and the client may lose the answer that was on its
way (RFC 9112, 9.6). So the sending side is closed first, what still comes is thrown away for a while, and
only then the rest is closed. A stranger gets a smaller while than a client with a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_SECONDS = 2.0
_MOST_BYTES = 4 * 1024 * 1024
_MOST_OF_A_STRANGER_BYTES = 16 * 1024
_STRANGERS = (b"401", b"403")


class LingeringTransport:
    """A transport whose ``close`` lingers while ``unread`` says that more is to come."""

    def __init__(self, inner: asyncio.Transport, unread: Callable[[], bool]) -> None:
        self._inner = inner
        self._unread = unread
        self._left = _MOST_BYTES
        self._end: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        """Send; the head of an answer tells whether the client is a stranger."""
        if data[:9] == b"HTTP/1.1 " and data[9:12] in _STRANGERS:
            self._left = _MOST_OF_A_STRANGER_BYTES
        self._inner.write(data)

    def close(self) -> None:
        """Close now, or linger first."""
        if self._end is not None or self._inner.is_closing() or not self._unread():
            self.finish()
            return
        self._end = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.finish)
        self._inner.write_eof()
        self._inner.resume_reading()

    def is_closing(self) -> bool:
        """Whether nothing more may be sent."""
        return self._end is not None or self._inner.is_closing()

    def swallow(self, data: bytes) -> bool:
        """Throw data away if this is closing; whether it did."""
        if self._end is None:
            return False
        self._left -= len(data)
        if self._left <= 0:
            self.finish()
        return True

    def finish(self) -> None:
        """Close for good."""
        if self._end is not None:
            self._end.cancel()
        self._inner.close()
