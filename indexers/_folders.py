"""Where named indexes lie on disk: one folder each, with a manifest that says what it holds.

Index names are free Unicode, so a folder is called by a readable stem and a hash, and the manifest
holds the real name. The manifest is written aside and renamed: without a manifest there is no index,
whatever else lies in the folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import durable
from pipeline.errors import IndexDamagedError, IndexingError
from pipeline.originals import disk_errors
from pipeline.seams import IndexSchema

MANIFEST = "index.json"
SHARD = "shard"
REBUILD = "Run `longleaf repair`: it rebuilds the index from the ledger."


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder holds. ``points`` is the count at the last flush, or None while writes are under
    way, in which case the count cannot be checked. ``shard`` is the folder of the engine's files, and
    ``settled`` the count when they were last optimised, None since something was deleted."""

    name: str
    schema: IndexSchema
    points: int | None = 0
    shard: str = SHARD
    settled: int | None = 0


def no_index(name: str) -> IndexingError:
    """What every indexer raises for one that it does not have."""
    return IndexingError(
        f"There is no index {name!r}.",
        remedy="Run `longleaf repair`, which builds it; or set indexer.name back to what it was made with.",
    )


def folder(root: Path, name: str) -> Path:
    """The folder of an index: at most 60 ASCII characters, different for different names."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return root / (f"{stem}-{digest}" if stem else digest)


def manifests(root: Path) -> dict[str, Manifest]:
    """Every index under ``root`` by name. Raises IndexDamagedError for a manifest that is unreadable."""
    with disk_errors(root):
        found = [_load(path) for path in sorted(root.glob(f"*/{MANIFEST}"))]
    return {manifest.name: manifest for manifest in found}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Make the manifest survive a power cut before this returns."""
    text = json.dumps(dataclasses.asdict(manifest), ensure_ascii=False, indent=1)
    write_durably(folder(root, manifest.name) / MANIFEST, text.encode())


def remove(root: Path, name: str) -> None:
    """Remove an index for good. The manifest goes first, so that half a removal is no index."""
    path = folder(root, name)
    with disk_errors(root):
        (path / MANIFEST).unlink(missing_ok=True)
        if path.exists():
            durable.sync(path)
            shutil.rmtree(path)
            durable.sync(root)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file so that after a crash it holds all of the old bytes or all of the new."""
    with disk_errors(path):
        durable.replace(path, data)
        durable.sync(path.parent)


def _load(path: Path) -> Manifest:
    try:
        content: Mapping[str, Any] = json.loads(path.read_bytes())
        rest = {key: content[key] for key in ("shard", "settled") if key in content}
        return Manifest(content["name"], IndexSchema(**content["schema"]), content["points"], **rest)
    except (ValueError, KeyError, TypeError) as error:
        raise IndexDamagedError(f"The manifest {path} is unreadable: {error!r}.", remedy=REBUILD) from error
