"""Which Qdrant servers the adapter can be used with: older ones ignore part of what it sends."""

from __future__ import annotations

import logging
import re

from pipeline.errors import IndexingError

# The first one that counts a word's documents over the whole collection (``params.idf.corpus``); those
# before it ignore that silently, and count only what they have indexed already.
OLDEST = (1, 19)

_log = logging.getLogger("longleaf.qdrant")


def check_version(url: str, told: str | None) -> None:
    """Raise IndexingError for a server that is too old; warn of one whose version is not known."""
    oldest = ".".join(map(str, OLDEST))
    found = re.match(r"v?(\d+)\.(\d+)", told or "")
    if found is None:
        _log.warning("the Qdrant server at %s does not tell its version; %s is needed", url, oldest)
    elif (int(found[1]), int(found[2])) < OLDEST:
        raise IndexingError(
            f"The Qdrant server at {url} is version {told}, in which scores of words differ.",
            remedy=f"Update it to version {oldest} or later, one minor version after another.",
        )
