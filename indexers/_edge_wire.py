"""Messages between the embedded engine's process and its owner: a JSON header and raw arrays.

A message is the header's length and each buffer's length as unsigned 64-bit integers, little endian,
then the bytes. Nothing in it can name code, as a pickle could.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

_COUNT = struct.Struct("<II")  # header bytes, number of buffers
_MAX_BUFFERS = 1 << 16


def send(channel: socket.socket, header: Mapping[str, Any], *buffers: bytes | memoryview) -> None:
    """Write one message. Raises OSError if the other side is gone."""
    text = json.dumps(header, ensure_ascii=False).encode()
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    sizes = struct.pack(f"<{len(views)}Q", *(len(view) for view in views))
    channel.sendall(_COUNT.pack(len(text), len(views)) + sizes + text)
    for view in views:
        channel.sendall(view)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[memoryview]]:
    """Read one message. Raises EOFError if the other side is gone."""
    length, count = _COUNT.unpack(_read(channel, _COUNT.size))
    if count > _MAX_BUFFERS:
        raise EOFError(f"The message claims {count} buffers.")
    sizes = struct.unpack(f"<{count}Q", _read(channel, 8 * count))
    header = json.loads(bytes(_read(channel, length)))
    return header, [_read(channel, size) for size in sizes]


def _read(channel: socket.socket, size: int) -> memoryview:
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        try:
            got = channel.recv_into(buffer[filled:])
        except ConnectionError as error:
            raise EOFError("The other process is gone.") from error
        if not got:
            raise EOFError("The other process is gone.")
        filled += got
    return buffer
