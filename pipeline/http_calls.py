"""What every client of a model's server needs: its key from a file, and what an answer says."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from pipeline.errors import ConfigurationError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a server that is busy or down for now: the same request may succeed later."""
_MOST_SAID = 200


def authorization(file: Path | None, *, owner: str, setting: str) -> dict[str, str]:
    """The headers that send the key ``file`` holds as a bearer token; none without a file.

    ``owner`` is whose key it is and ``setting`` the name of the setting that gives the file, both for errors.
    Raises ConfigurationError for a file that cannot be read or holds anything but one printable ASCII key.
    """
    if file is None:
        return {}
    try:
        key = file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"The file with the {owner}'s key cannot be read: {error}", remedy=f"Check {setting}."
        ) from error
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            f"{file} does not hold a key alone.", remedy="Write the key into it, and nothing else."
        )
    return {"Authorization": f"Bearer {key}"}


def said(answer: httpx.Response) -> str:
    """What the server said of its refusal, on one line of at most 200 characters.

    That is the ``error`` of a JSON object, or its ``message`` (OpenAI's form), or the whole body otherwise.
    """
    try:
        content = json.loads(answer.text)
        error = content.get("error", content)
        text = error.get("message") or str(error) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        text = answer.text
    return " ".join(str(text).split())[:_MOST_SAID]
