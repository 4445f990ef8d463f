"""Indexes that a program of one's own keeps beside those of collections, such as a LangChain store's.

The ledger has nothing that they could be built from again: no backup holds them, and who removes the folder
of an engine removes them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pipeline.layers import is_of_collection

_MANIFEST = "index.json"  # every engine that keeps files writes the name of an index there


def foreign_indexes(folder: Path) -> tuple[str, ...]:
    """Their names, as the files of the engines below ``folder`` tell; another process may have them open."""
    names = set()
    for path in folder.rglob(_MANIFEST):
        with suppress(OSError, ValueError, KeyError, TypeError):
            names.add(str(json.loads(path.read_bytes())["name"]))
    return tuple(sorted(name for name in names if not is_of_collection(name)))
