"""The process that holds the embedded engine: ``python -m indexers._edge_worker FD FD FOLDER``.

The engine keeps the interpreter lock in every call and may abort on damaged files, so it lives apart
from the service. This process owns the folder (an advisory lock that the kernel lets go of when it
dies), answers one request at a time, and dies with its parent even in the middle of a call.
It imports nothing heavy: it must be there before the parent has loaded its models.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexers._edge_wire import receive, send
from pipeline.errors import DiskFullError, IndexingError, IndexOwnedError, LongleafError

_HANDOVER_SECONDS = 10.0  # an engine that lost its owner may be finishing a call

Reply = tuple[dict[str, Any], list[bytes]]


def main(channel_fd: int, lifeline_fd: int, root: Path) -> None:
    """Take the lock, then answer until the parent closes its end."""
    die_with_parent(lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    channel = socket.socket(fileno=channel_fd)
    try:
        lock = _own(root)
    except LongleafError as error:
        send(channel, described(error))
        return
    from indexers._edge_shards import Shards  # loads the engine, which only the owner needs

    shards = Shards(lambda path: send(channel, {"opening": str(path)}))
    send(channel, {"ready": os.getpid()})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            header, buffers = receive(channel)
            reply, payloads = _answer(getattr(shards, header.pop("do")), header, buffers)
            send(channel, reply, *payloads)
    shards.close()
    os.close(lock)


def _answer(do: Callable[..., Reply], header: dict[str, Any], buffers: list[memoryview]) -> Reply:
    try:
        return do(*buffers, **header)
    except LongleafError as error:
        return described(error), []
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception; the parent gets it as an error
        return described(translated(error, IndexingError)), []


def translated(error: BaseException, kind: type[LongleafError]) -> LongleafError:
    """The engine's error as one of ours: DiskFullError where the disk is full, else ``kind``."""
    text = f"{type(error).__name__}: {error}"
    if "No space left" in text or "os error 28" in text or "os error 122" in text:
        return DiskFullError("No space is left for the index.", remedy="Free space there and try again.")
    return kind(
        f"The embedded engine failed: {text[:500]}.",
        remedy="If it fails again run `longleaf repair`: it rebuilds the index from the ledger.",
    )


def described(error: LongleafError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}


def die_with_parent(lifeline_fd: int) -> None:
    """Ask the kernel for a fatal SIGIO when the other end of the pipe closes. Only the parent has it,
    so that happens when the parent is gone. Where the kernel cannot, the closed channel ends us."""
    if hasattr(os, "O_ASYNC") and hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)


def _own(root: Path) -> int:
    """Lock the folder and say in the lock file who has it. Raises IndexOwnedError."""
    path = root / "owner.json"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = _owner(handle)
            if time.monotonic() > deadline or _alive(owner):
                os.close(handle)
                raise _owned(root, owner) from None
            time.sleep(0.05)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    owner = {"pid": os.getppid(), "engine_pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)
    return handle


def _owner(handle: int) -> dict[str, Any]:
    try:
        owner: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return owner


def _alive(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _owned(root: Path, owner: dict[str, Any]) -> IndexOwnedError:
    who = f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'this machine')}"
    return IndexOwnedError(
        f"The index in {root} is in use by {who} since {owner.get('since', 'an unknown time')}.",
        remedy="Stop that process, or use another data directory. If it is a server, ask it instead: "
        "it takes documents from `longleaf ingest --queue`.",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
