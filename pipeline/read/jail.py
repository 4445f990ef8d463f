"""The reader process, started by :mod:`pipeline.read.sandbox`.

It imports readers once and forks for every file, so a file costs milliseconds, starts from a clean
process, and cannot touch the next one. The fork bounds its own CPU time, wall time, memory and open
files, writes no file, starts no process, opens no socket, and reads no file but the Python
installation. The kernel enforces this where it can (rlimits everywhere; on Linux also Landlock and an
empty network namespace); a Python audit hook says the same where it cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import mimetypes
import os
import resource
import signal
import site
import socket
import struct
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from pipeline.errors import LongleafError, ReaderLimitError, ReadError
from pipeline.read import wire
from pipeline.read.builder import Hints
from pipeline.types import Document

JOB = struct.Struct("!64sIdQQ")
"""Module of the reader, CPU seconds, wall seconds, memory bytes, output code points; with a socket."""

VERDICT = struct.Struct("!iQ")
"""Exit status as os.waitstatus_to_exitcode gives it (negative: a signal), and peak memory in bytes."""

OUT_OF_MEMORY = 77
"""Exit status of a fork whose memory limit was reached."""

_OPEN_FILES = 32
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.",
    "shutil.",
    "pty.",
    "ctypes.dlopen",
    "tempfile.",
    "ftplib.",
    "urllib.",
)
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
_NR_LANDLOCK = (444, 445, 446)
_CLONE_NEWUSER_NEWNET = 0x10000000 | 0x40000000
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Serve jobs from the socket on descriptor 0 until the parent closes it."""
    control = socket.socket(fileno=0)
    mimetypes.init()  # it reads /etc once, which a fork may not
    _leave_network()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, JOB.size, 1)
        if len(message) < JOB.size:
            return
        field, *limits, output_chars = JOB.unpack(message)
        reader = field.rstrip(b"\x00").decode()
        with contextlib.suppress(ImportError):  # the fork meets it again and reports it
            importlib.import_module(reader)
        channel = socket.socket(fileno=descriptors[0])
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _fork(control, channel, reader, limits, output_chars)
        channel.close()
        _, status, usage = os.wait4(pid, 0)
        peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        control.sendall(VERDICT.pack(os.waitstatus_to_exitcode(status), peak_bytes))


def _fork(
    control: socket.socket, channel: socket.socket, reader: str, limits: list[float], output_chars: int
) -> NoReturn:
    """The life of one fork. Whatever happens, it never returns to the loop above."""
    try:
        control.close()
        confine(*limits)
        serve(channel, reader, output_chars)
        channel.close()
        os._exit(0)
    finally:
        os._exit(1)


def serve(channel: socket.socket, reader: str, output_chars: int) -> None:
    """Read one job (a line of JSON, then the file) from ``channel`` and write its outcome there."""
    with channel.makefile("rb") as stream:
        hints = Hints(**json.loads(stream.readline()))
        data = stream.read()
    try:
        outcome = b"D" + wire.encode(_read(reader, data, hints, output_chars))
    except LongleafError as error:
        outcome = b"E" + json.dumps([error.code, error.message, error.remedy]).encode()
    except ImportError as error:
        outcome = b"I" + (error.name or str(error)).encode()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - a parser may raise anything; the parent translates it
        outcome = b"X" + f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1000]
    channel.sendall(outcome)


def _read(reader: str, data: bytes, hints: Hints, output_chars: int) -> Document:
    document: Document = importlib.import_module(reader).read(data, hints)
    if not isinstance(document, Document):
        raise ReadError(f"The {reader} reader returned {type(document).__name__}.")
    if len(document.text) > output_chars:
        raise ReaderLimitError(
            f"{hints.name} holds {len(document.text):,} characters of text; the limit is {output_chars:,}.",
            remedy="Split the file, or raise the reading limit output_chars.",
        )
    return document


def confine(cpu_seconds: float, wall_seconds: float, memory_bytes: float) -> None:
    """Bind this process to its limits, for good. What the platform lacks is left out."""
    roots = _installation()
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    _limit(resource.RLIMIT_CPU, int(cpu_seconds), spare=1)  # SIGXCPU first: SIGKILL would not say why
    _limit(resource.RLIMIT_AS, _address_space_bytes() + int(memory_bytes))
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    with contextlib.suppress(AttributeError):
        _limit(resource.RLIMIT_NPROC, 0)
    _landlock(roots)
    sys.addaudithook(_Guard(roots))


class _Guard:
    """Audit hook that refuses what a parser has no business doing."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._roots = roots

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            reading = not (isinstance(flags, int) and flags & _WRITING)
            if reading and (isinstance(path, int) or self._may_read(path)):
                return
        elif not event.startswith(_FORBIDDEN) or event in _HARMLESS:
            return
        raise PermissionError(f"A reader may not do this: {event}.")

    def _may_read(self, path: object) -> bool:
        return isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(self._roots)


def _installation() -> tuple[str, ...]:
    """Folders a reader may still read: the standard library, installed packages, and our readers."""
    known = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    known |= set(site.getsitepackages()) | {str(Path(__file__).parents[1])}
    return tuple(sorted(os.path.realpath(path) + os.sep for path in known if path and Path(path).is_dir()))


def _limit(which: int, value: int, spare: int = 0) -> None:
    """Set a limit, the hard one ``spare`` above the soft one, never above what the process already has."""
    _, hard = resource.getrlimit(which)
    most = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (min(value, most), most))


def _address_space_bytes() -> int:
    """What the interpreter and its libraries occupy before the file is read; 0 where unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _leave_network() -> None:
    """Move into an empty network namespace, where the kernel lets an ordinary user do so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(_CLONE_NEWUSER_NEWNET)


def _landlock(roots: tuple[str, ...]) -> None:
    """Deny every file outside ``roots``, all writing, and TCP. Linux 5.13 and later.

    https://docs.kernel.org/userspace-api/landlock.html
    """
    if sys.platform != "linux":
        return
    syscall = ctypes.CDLL(None).syscall
    create, add_rule, restrict = _NR_LANDLOCK
    version = syscall(create, None, 0, 1)
    if version < 1:
        return
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    attributes = struct.pack("=QQ", files, 3 if version >= 4 else 0)  # TCP bind and connect
    ruleset = syscall(create, attributes, len(attributes), 0)
    if ruleset < 0:
        return
    for root in roots:
        folder = os.open(root, os.O_RDONLY)
        rule = struct.pack("=Qi", 0b1100, folder)  # read files, read directories
        syscall(add_rule, ruleset, 1, rule, 0)
        os.close(folder)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    syscall(restrict, ruleset, 0)
    os.close(ruleset)
