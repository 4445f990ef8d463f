"""Bytes to Document: sniff the format, then parse it in a limited child process.

One module reads one format; each defines ``MEDIA_TYPES``, ``SUFFIXES`` and ``read(data, hints)``.
Nothing heavy is imported here: the parsers live in the reader process.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import EmptyDocumentError, LimitExceededError, NotFoundError, ReadError
from pipeline.read.builder import Hints
from pipeline.read.limits import MIB, Limits
from pipeline.read.sandbox import Sandbox
from pipeline.read.sniff import SUFFIXES, SUPPORTED, detect
from pipeline.types import Document

__all__ = ["SUFFIXES", "SUPPORTED", "Limits", "read"]


def read(
    data: bytes | Path,
    *,
    name: str = "",
    media_type: str | None = None,
    password: str | None = None,
    limits: Limits | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Document:
    """Read one file. ``name`` (for a path: its file name) helps to tell the format and is its last title.
    Parsing is ended soon after ``cancelled`` says so, with WorkCancelledError.

    Raises a ReadError saying what is wrong with the file and what to do: UnsupportedFormatError,
    EmptyDocumentError, NoTextError, PasswordRequiredError, DamagedFileError, ReaderLimitError; and
    LimitExceededError before reading where the file is larger than ``limits.input_bytes``.
    """
    limits = limits or Limits()
    if isinstance(data, Path):
        name = name or data.name
        data = _load(data, limits)
    _check_size(name, len(data), limits)
    name = name or "The file"
    hints = Hints(name=name, media_type=media_type or "", password=password)
    reader = f"{__name__}.{detect(data, name, hints.media_type)}"
    document = _sandbox().run(reader, data, hints, limits, cancelled)
    if not document.text.strip():
        raise EmptyDocumentError(
            f"{name} holds no text.", remedy="If it shows images of text, run OCR on it first."
        )
    return document


def _load(path: Path, limits: Limits) -> bytes:
    try:
        _check_size(path.name, path.stat().st_size, limits)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", remedy="Check the path.") from error
    except OSError as error:
        raise ReadError(
            f"{path} cannot be opened ({error.strerror}).", remedy="Check that it is a file you may read."
        ) from error


def _check_size(name: str, size_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.input_bytes:
        raise LimitExceededError(
            f"{name} has {size_bytes / MIB:.1f} MiB; the limit is {limits.input_bytes / MIB:.1f} MiB.",
            remedy="Split the file, or raise the reading limit input_bytes.",
        )


@functools.cache
def _sandbox() -> Sandbox:
    """The pool of reader processes of this process, started by the first file."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox
