"""Parsing in a child process, so that a hostile or broken file costs an error and nothing else.

A :class:`Sandbox` keeps reader processes (:mod:`pipeline.read.jail`) warm: starting one takes a few
tenths of a second, a file in a warm one takes milliseconds plus its parsing. Each file is parsed in a
fork of its own, under its own limits. As many files are read at once as threads call :meth:`Sandbox.run`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pipeline import errors
from pipeline.errors import (
    DamagedFileError,
    LongleafError,
    MissingDependencyError,
    ReaderLimitError,
    UnavailableError,
    WorkCancelledError,
)
from pipeline.read import jail, wire
from pipeline.read.builder import Hints
from pipeline.read.limits import MIB, Limits
from pipeline.types import Document

_GRACE_SECONDS = 10.0
"""How long after ``wall_seconds`` a reader process may still take to report before it is killed."""

_BYTES_PER_CHAR = 12
"""The most JSON spends on one code point, blocks and pages included, in a document worth having."""

_PIECE_BYTES = 1024 * 1024
_LOOK_SECONDS = 0.25  # between two looks whether the document is still wanted
_DAMAGED_REMEDY = "Open it in the program that made it, save it again, and retry with the new file."
_SINGLE_THREADED = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Sandbox:
    """A pool of reader processes. Safe to share between threads; :meth:`close` ends them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []
        self._pid = os.getpid()
        atexit.register(self.close)

    def run(
        self,
        reader: str,
        data: bytes,
        hints: Hints,
        limits: Limits,
        cancelled: Callable[[], bool] | None = None,
    ) -> Document:
        """Parse ``data`` with the function ``read`` of the module named ``reader`` within ``limits``.

        Raises the reader's own ReadError, ReaderLimitError where a limit was reached,
        DamagedFileError where the parser failed or crashed, and WorkCancelledError, with the process ended,
        soon after ``cancelled`` says so.
        """
        process = self._take()
        try:
            outcome, status, peak_bytes = process.work(reader, data, hints, limits, cancelled or _never)
        except BaseException:
            process.kill()
            raise
        with self._lock:
            self._idle.append(process)
        return _judge(outcome, status, peak_bytes, hints.name, limits)

    def close(self) -> None:
        """End every idle reader process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()

    def _take(self) -> _Reader:
        with self._lock:
            if self._pid != os.getpid():  # a fork of this process: the pipes belong to the parent
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                process = self._idle.pop()
                if process.alive():
                    return process
                process.kill()
        return _Reader()


class _Reader:
    """One reader process and the socket on which it takes jobs."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {jail.__name__} import main; main()"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**_SINGLE_THREADED, "PYTHONPATH": paths, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            )
        self._control = ours

    def alive(self) -> bool:
        """Whether the process can take a job."""
        return self._process.poll() is None

    def work(
        self, reader: str, data: bytes, hints: Hints, limits: Limits, cancelled: Callable[[], bool]
    ) -> tuple[bytes, int, int]:
        """The fork's outcome, exit status and peak memory in bytes. Raises UnavailableError and
        WorkCancelledError."""
        deadline = time.monotonic() + limits.wall_seconds + _GRACE_SECONDS
        ours, theirs = socket.socketpair()
        with ours:
            job = jail.JOB.pack(
                reader.encode(),
                limits.cpu_seconds,
                limits.wall_seconds,
                limits.memory_bytes,
                limits.output_chars,
            )
            try:
                with theirs:
                    socket.send_fds(self._control, [job], [theirs.fileno()])
                outcome = _exchange(ours, data, hints, limits, deadline, cancelled)
                self._control.settimeout(max(deadline - time.monotonic(), 0.1))
                verdict = self._control.recv(jail.VERDICT.size, socket.MSG_WAITALL)
            except TimeoutError:
                verdict = b""
            except OSError as error:
                raise UnavailableError(
                    f"The reader process ended unexpectedly while reading {hints.name} ({error}).",
                    remedy="Try again; if it happens again, look for other programs using up the memory.",
                ) from error
        if len(verdict) < jail.VERDICT.size:
            self.kill()
            return b"", -signal.SIGALRM, 0
        status, peak_bytes = jail.VERDICT.unpack(verdict)
        return outcome, status, peak_bytes

    def kill(self) -> None:
        """End the process and whatever it is reading, now."""
        self._control.close()
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _never() -> bool:
    return False


def _exchange(  # noqa: PLR0917 - one call
    channel: socket.socket,
    data: bytes,
    hints: Hints,
    limits: Limits,
    deadline: float,
    cancelled: Callable[[], bool],
) -> bytes:
    """Send the job and collect the outcome, up to the size of the largest document allowed."""
    header = {"name": hints.name, "media_type": hints.media_type, "password": hints.password}
    channel.settimeout(max(deadline - time.monotonic(), 0.1))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the verdict tells why
        channel.sendall(json.dumps(header).encode() + b"\n")
        channel.sendall(data)
        channel.shutdown(socket.SHUT_WR)
    outcome = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := _piece(channel, hints, deadline, cancelled):
            outcome += piece
            if len(outcome) > limits.output_chars * _BYTES_PER_CHAR + MIB:
                raise ReaderLimitError(
                    f"{hints.name}: reading it produced over {len(outcome):,} bytes.",
                    remedy="Split the file, or raise the reading limit output_chars.",
                )
    return bytes(outcome)


def _piece(channel: socket.socket, hints: Hints, deadline: float, cancelled: Callable[[], bool]) -> bytes:
    """More of the outcome, empty at its end. Raises TimeoutError at the deadline."""
    while True:
        left = max(deadline - time.monotonic(), 0.1)
        channel.settimeout(min(left, _LOOK_SECONDS))
        try:
            return channel.recv(_PIECE_BYTES)
        except TimeoutError:
            if cancelled():
                raise WorkCancelledError(f"Cancelled while reading {hints.name!r}.") from None
            if left <= _LOOK_SECONDS:
                raise


def _judge(outcome: bytes, status: int, peak_bytes: int, name: str, limits: Limits) -> Document:
    """Turn what the fork said, or how it died, into a document or an error of the tree."""
    if status != 0:
        _blame(status, peak_bytes, name, limits)
    kind, body = outcome[:1], outcome[1:]
    if kind == b"D":
        return wire.decode(body)
    if kind == b"E":
        code, message, remedy = json.loads(body)
        raise _ERRORS.get(code, DamagedFileError)(str(message), remedy=str(remedy))
    said = body.decode("utf-8", "replace")
    if kind == b"I":
        raise MissingDependencyError(
            f"Reading {name} needs the package {said!r}, which is not installed.",
            remedy=f"Install it with: pip install {said}.",
        )
    raise DamagedFileError(f"{name} could not be parsed ({said or 'no answer'}).", remedy=_DAMAGED_REMEDY)


def _blame(status: int, peak_bytes: int, name: str, limits: Limits) -> NoReturn:
    if status == -signal.SIGXCPU:
        raise ReaderLimitError(
            f"{name} took more than {limits.cpu_seconds} s of processor time to read.",
            remedy="Split the file, or raise the reading limit cpu_seconds.",
        )
    if status == -signal.SIGALRM:
        raise ReaderLimitError(
            f"{name} was not read within {limits.wall_seconds:g} s.",
            remedy="Split the file, or raise the reading limit wall_seconds.",
        )
    if status in (jail.OUT_OF_MEMORY, -signal.SIGKILL) or peak_bytes > limits.memory_bytes * 3 // 4:
        raise ReaderLimitError(
            f"{name} needs more than {limits.memory_bytes // MIB} MiB of memory to read.",
            remedy="Split the file, or raise the reading limit memory_bytes.",
        )
    cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    raise DamagedFileError(f"{name} made its parser crash ({cause}).", remedy=_DAMAGED_REMEDY)


def _errors_by_code(root: type[LongleafError]) -> dict[str, type[LongleafError]]:
    known = {root.code: root}
    for child in root.__subclasses__():
        known |= _errors_by_code(child)
    return known


_ERRORS = _errors_by_code(errors.ReadError)
