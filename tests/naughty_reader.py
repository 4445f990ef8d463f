"""A reader that does what its file asks for: everything a hostile file might make a parser do."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from pipeline.errors import PasswordRequiredError
from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.types import Document

LIBC = ctypes.CDLL(None)
STATE: list[bytes] = []


def read(data: bytes, hints: Hints) -> Document:
    order, _, argument = data.decode().partition(" ")
    STATE.append(data)
    said = _ORDERS[order](argument)
    builder = DocumentBuilder()
    builder.add("paragraph", f"{order}: {said}")
    return builder.build(title=hints.name, metadata={"password": hints.password or ""})


def _burn(_: str) -> None:
    while True:
        pass


def _hog(_: str) -> None:
    kept = []
    while True:
        kept.append(bytearray(16 * 1024 * 1024))


def _recurse(argument: str) -> str:
    return _recurse(argument)


def _libc_open(path: str) -> str:
    """Past Python's audit hook, as native code would."""
    return str(LIBC.open(path.encode(), os.O_RDONLY))


def _refuse(_: str) -> str:
    raise PasswordRequiredError("It is locked.", remedy="Unlock it.")


def _lie(_: str) -> None:
    """Write garbage where the document belongs and leave."""
    for descriptor in range(3, 32):
        try:
            if socket.fromfd is not None and os.fstat(descriptor):
                os.write(descriptor, b'D{"text": 7}')
        except OSError:
            continue
    os._exit(0)


_ORDERS = {
    "echo": lambda argument: argument,
    "seen": lambda _: len(STATE),
    "long": lambda argument: "x" * int(argument),
    "burn": _burn,
    "sleep": lambda argument: time.sleep(float(argument)),
    "hog": _hog,
    "recurse": _recurse,
    "segfault": lambda _: ctypes.string_at(0),
    "exit": lambda _: sys.exit(3),
    "raise": lambda argument: (_ for _ in ()).throw(ValueError(argument)),
    "refuse": _refuse,
    "lie": _lie,
    "open": lambda path: Path(path).read_text(),
    "libc_open": _libc_open,
    "write": lambda path: Path(path).write_text("here"),
    "run": lambda argument: subprocess.run([argument], check=True),
    "connect": lambda _: socket.create_connection(("127.0.0.1", 9)),
    "fork": lambda _: os.fork(),
}
