"""Hears every unpickling in this process that Longleaf's own code asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
PACKAGES = {"pipeline", "embedders", "indexers", "rerankers", "api"}
# The standard library talks to its own child processes in pickles; they carry no data of users' files.
_PROCESSES = ("multiprocessing/", "concurrent/futures/process.py")

_found: list[str] = []
_heard = 0
_watched = set(PACKAGES)


def heard() -> int:
    """How many look-ups there were, whoever asked."""
    return _heard


def found() -> list[str]:
    """Where it happened, and what was looked up."""
    return _found


@contextmanager
def watched(package: str) -> Iterator[None]:
    """Listen to this package too, for a control."""
    _watched.add(package)
    try:
        yield
    finally:
        _watched.discard(package)


def listen() -> None:
    """From now on, to the end of the process: hooks cannot be taken away."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event != "pickle.find_class":
        return
    global _heard  # noqa: PLW0603 - a hook has nowhere else to count
    _heard += 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if any(part in name for part in _PROCESSES):
            return
        path = Path(name)
        if path.is_absolute() and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in _watched:
            _found.append(f"{path}:{frame.f_lineno} {arguments}")
            return
        frame = frame.f_back
