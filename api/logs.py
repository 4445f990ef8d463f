"""Structured logs that hold no content: names, numbers, times and places in the code, and nothing else.

Libraries are heard from warnings up, whatever the level: what they say at DEBUG can be anything. Of an
exception its type and its frames are told, not its words, which may be words of a document.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from api.sections import LoggingSettings

_FRAMES = 12
_OWN = "longleaf"


def configure_logging(settings: LoggingSettings) -> None:
    """Send the logs of the whole process to standard error, in the form that the settings name."""
    people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if people
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                without_words,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OWN).setLevel(settings.level.upper())


def without_words(_: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put an exception's type and frames in place of its text."""
    found = entry.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        entry["exception"] = type(error).__name__
        entry["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    entry.pop("exc_text", None)
    entry.pop("stack_info", None)
    return entry
