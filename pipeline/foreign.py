"""Indexes that a program of one's own keeps beside those of collections, such as a LangChain store's.

The ledger has nothing that they could be built from again: no backup holds them, and who removes the folder
of an engine removes them.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.layers import is_of_collection

_MANIFEST = "index.json"  # every engine that keeps files writes the name of an index there


def foreign_indexes(folder: Path) -> tuple[str, ...]:
    """Their names, as the files of the engines below ``folder`` tell; another process may have them open."""
    return tuple(sorted(name for name in _names(folder) if not is_of_collection(name)))


def all_foreign(folder: Path) -> bool:
    """Whether there are such indexes below ``folder``, and none of a collection."""
    names = _names(folder)
    return bool(names) and not any(map(is_of_collection, names))


def _names(folder: Path) -> set[str]:
    names = set()
    for path in folder.rglob(_MANIFEST):
        try:
            names.add(str(json.loads(path.read_bytes())["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            names.add(str(path.parent))  # it may be anybody's
    return names
