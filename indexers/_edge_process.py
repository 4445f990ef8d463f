"""The owner's end of the embedded engine's process: start it, ask it, restart it once, let it go."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexers import _folders
from indexers._edge_wire import receive, send
from pipeline import errors
from pipeline.turns import Turns

_LAST_WORDS_BYTES = 2000
_STOP_SECONDS = 60.0
_FULL_DISK_BYTES = 16 << 20

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Request:
    """What the engine is asked: the name of a method of ``Shards``, its arguments, its arrays."""

    do: str
    arguments: dict[str, Any]
    buffers: tuple[Buffer, ...] = ()


class EngineProcess:
    """Thread-safe; requests are answered one at a time.

    The process starts with the object and is waited for by the first request. Writes are remembered
    until they were flushed, so that an engine that died can be started again and brought up to date.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turns = Turns()
        self._closed = False
        self._ready = False
        self._opening = ""
        self._channel: socket.socket
        self._unflushed: list[Request] = []
        self.unflushed_bytes = 0
        self._start()

    def read(self, do: str, *buffers: Buffer, **arguments: Any) -> tuple[dict[str, Any], list[memoryview]]:  # noqa: ANN401 - JSON values
        """Ask and return the answer.

        An engine that dies is started again and asked once more. Raises what the engine raised;
        IndexDamagedError if it died twice reading an index, DiskFullError if it did on a full disk, and
        else UnavailableError.
        """
        with self._turns.turn():
            return self._ask(Request(do, arguments, buffers))

    def write(self, do: str, *buffers: Buffer, **arguments: Any) -> None:  # noqa: ANN401 - JSON values
        """Like :meth:`read` for a request that changes points, remembered until :meth:`flush`."""
        request = Request(do, arguments, buffers)
        with self._turns.turn():
            self._ask(request)
            self._unflushed.append(request)
            self.unflushed_bytes += sum(len(memoryview(buffer).cast("B")) for buffer in buffers)

    def flush(self, paths: list[str]) -> list[int]:
        """Make everything written at these paths durable; the number of points at each."""
        with self._turns.turn():
            answer, _ = self._ask(Request("flush", {"paths": paths}))
            self._unflushed = [r for r in self._unflushed if r.arguments["path"] not in paths]
            self.unflushed_bytes = 0
            points: list[int] = answer["points"]
            return points

    def forget(self, path: str) -> None:
        """Close a shard for good and drop the writes remembered for it."""
        with self._turns.turn():
            self._unflushed = [r for r in self._unflushed if r.arguments["path"] != path]
            self._ask(Request("release", {"path": path}))

    def close(self) -> None:
        """Let the engine end. Callers flush first."""
        with self._turns.turn():
            if not self._closed:
                self._closed = True
                self._reap()
                self._stderr.close()

    def _ask(self, request: Request) -> tuple[dict[str, Any], list[memoryview]]:
        if self._closed:
            raise errors.IndexingError("The index is closed.")
        try:
            return self._answer(request)
        except (EOFError, OSError):
            self._restart()
        try:
            return self._answer(request)
        except (EOFError, OSError) as error:
            raise self._post_mortem(request.do) from error

    def _answer(self, request: Request) -> tuple[dict[str, Any], list[memoryview]]:
        if not self._ready:
            answer, _ = receive(self._channel)
            _raise(answer)
            try:
                for earlier in self._unflushed:
                    self._exchange(earlier)
            except errors.LongleafError:
                self._channel.close()  # it said that it is ready; only a new one will say so again
                raise
            self._ready = True
        return self._exchange(request)

    def _exchange(self, request: Request) -> tuple[dict[str, Any], list[memoryview]]:
        answer, buffers = self._reply(request)
        _raise(answer)
        return answer, buffers

    def _reply(self, request: Request) -> tuple[dict[str, Any], list[memoryview]]:
        """The answer to a request, which may be an error. Nobody else may read it: where this thread is
        interrupted before it has it, the channel is closed, so that the next request starts anew."""
        self._opening = ""
        try:
            send(self._channel, {"do": request.do, **request.arguments}, *request.buffers)
            while True:
                answer, buffers = receive(self._channel)
                if "opening" not in answer:
                    return answer, buffers
                self._opening = answer["opening"]
        except BaseException:
            self._channel.close()
            raise

    def _start(self) -> None:
        self._ready = False
        self._opening = ""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - read once the process is dead
        self._channel, theirs = socket.socketpair()
        watched, self._lifeline = os.pipe()
        descriptors = theirs.fileno(), watched
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "indexers._edge_worker", *map(str, descriptors), str(self._root)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        finally:
            theirs.close()
            os.close(watched)

    def _restart(self) -> None:
        self._reap()
        self._stderr.close()
        self._start()

    def _reap(self) -> None:
        """Close our end and wait; an engine that does not end by itself is killed."""
        self._channel.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._lifeline)

    def _post_mortem(self, do: str) -> errors.LongleafError:
        """What to tell of an engine that died twice. Another one is started for what comes next."""
        self._reap()
        with self._stderr:
            end = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, end - _LAST_WORDS_BYTES))
            words = self._stderr.read().decode(errors="replace").strip() or "nothing"
        died, opening = (
            f"The index process died twice (exit status {self._process.returncode})",
            self._opening,
        )
        self._start()
        if shutil.disk_usage(self._root).free < _FULL_DISK_BYTES:
            return errors.DiskFullError(f"{died} on a full disk.", remedy="Free space there and try again.")
        if opening:
            return errors.IndexDamagedError(
                f"{died} opening {opening}; it said: {words}", remedy=_folders.REBUILD
            )
        return errors.UnavailableError(
            f"{died} in {do!r}; it said: {words}",
            remedy="Try again; `longleaf doctor` checks the installation.",
        )


def _raise(answer: dict[str, Any]) -> None:
    if "error" in answer:
        kind: Callable[..., errors.LongleafError] = getattr(errors, answer["error"])
        raise kind(answer["message"], remedy=answer["remedy"])
