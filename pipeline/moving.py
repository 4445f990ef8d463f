"""A collection as a folder of files, with its vectors: for moving it between indexes and installations.

====================== =====================================================================
``manifest.json``      what it was made with, counts, size and SHA-256 of every other file
``documents.jsonl``    one live document a line, as the ledger has it
``texts/``             what the reader made of each document; ``originals/`` the files as they came
``embedder/``          what the embedder had learnt, if it learns (:mod:`pipeline.learnt`)
``passages-0.jsonl``   document, ordinal and payload of points, one a line, and so on by layer and part
``passages-0.safetensors`` their vectors: ``dense`` float32 ``(n, dim)``; ``lengths``, ``indices``,
                       ``weights`` of the words, end to end
====================== =====================================================================

Nothing is embedded on the way, so a collection moves at the speed of the disk and is the same afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline import learnt
from pipeline.backup import require_outside
from pipeline.errors import ConflictError, DamagedFileError, IndexingError, InvalidRequestError
from pipeline.layers import LAYERS, Layer, index_name
from pipeline.ledger import Ledger
from pipeline.originals import disk_errors
from pipeline.records import DocumentRecord, VersionKey, derived_id
from pipeline.seams import Indexer, IndexSchema
from pipeline.types import Point, SparseVector

T = TypeVar("T")

FORMAT = 1
_PART_POINTS = 50_000
_OWN = ("tenant", "collection", "id", "version", "created", "updated")


@dataclass(frozen=True, slots=True)
class Moved:
    """What was written or read. ``unchanged`` documents were there already, and only got their points."""

    collection: str
    documents: int
    points: int
    unchanged: int = 0


def export_collection(
    ledger: Ledger, indexer: Indexer, folder: Path, *, tenant: str = "default", collection: str = "default"
) -> Moved:
    """Write the live documents of a collection to ``folder``, which must not exist.

    It appears under its name once it is complete, readable by its owner only. Raises NotFoundError;
    InvalidRequestError for a folder that exists or is inside of the data; IndexingError if the index does
    not have what the ledger says (verify and repair first).
    """
    record = ledger.collection(tenant, collection)
    if folder.exists():
        raise InvalidRequestError(f"{folder} exists.", remedy="Name a folder that does not.")
    require_outside(ledger.root, folder)
    live = {(d.id, d.version): d for d in ledger.every_document(tenant, collection)}
    aside = folder.with_name(f"{folder.name}.partial")
    with disk_errors(aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True, mode=0o700)
        for part in ("texts", "originals"):
            (aside / part).mkdir()
        _write_documents(ledger, aside, live.values())
        counts, dims = {}, {}
        for layer in LAYERS:
            name = index_name(tenant, collection, layer)
            schema = indexer.schema(name)
            if schema is None:
                raise _incomplete(name, "is not there")
            counts[layer] = _write_points(indexer, name, schema, aside, layer, live)
            dims[layer] = schema.dim
            expected = sum(_count(document, layer) for document in live.values())
            if counts[layer] != expected:
                raise _incomplete(name, f"has {counts[layer]} points of live documents, not {expected}")
        found = learnt.made_with(ledger.root, record.fingerprint)
        if found is not None:
            learnt.keep(aside / learnt.FOLDER / found.plugin, found.name, found.file.read_bytes())
        manifest = {
            "format": FORMAT,
            "collection": collection,
            "fingerprint": record.fingerprint,
            "chunking": record.chunking,
            "lexical": record.lexical,
            "dims": dims,
            "documents": len(live),
            "points": counts,
            "files": {str(p.relative_to(aside)): _state(p) for p in sorted(aside.rglob("*")) if p.is_file()},
        }
        _write(aside / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        for path in aside.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        aside.rename(folder)
    return Moved(collection, len(live), sum(counts.values()))


class Export:
    """A folder that :func:`export_collection` wrote, opened for reading once every file was checked."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidRequestError for a folder that is none, DamagedFileError for one that changed."""
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
            known = self.manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequestError(
                f"{folder} holds no exported collection.", remedy="Name what `longleaf export` wrote."
            ) from error
        if known != FORMAT:
            raise InvalidRequestError(
                f"{folder} has format {known}; this Longleaf reads {FORMAT}.", remedy="Use a newer Longleaf."
            )
        for name, state in self.manifest["files"].items():
            path = folder / name
            if not path.is_file() or _state(path) != state:
                raise DamagedFileError(f"{path} is missing or was changed.", remedy="Export it again.")

    def documents(self) -> Iterator[dict[str, Any]]:
        """Every document as the ledger had it."""
        with (self.folder / "documents.jsonl").open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def text(self, document_id: str) -> bytes:
        """What the reader had made of it."""
        return (self.folder / "texts" / _file_name(document_id)).read_bytes()

    def original(self, document_id: str) -> Path | None:
        """The file as it came, if there was one."""
        path = self.folder / "originals" / _file_name(document_id)
        return path if path.exists() else None

    def points(self, layer: Layer) -> Iterator[tuple[str, int, Point]]:
        """Document, ordinal and point, whose id is that of the installation it comes from."""
        from safetensors.numpy import load_file

        part = 0
        while (lines := self.folder / f"{layer}-{part}.jsonl").exists():
            arrays = load_file(self.folder / f"{layer}-{part}.safetensors")
            ends = np.cumsum(arrays["lengths"]) if "lengths" in arrays else None
            with lines.open(encoding="utf-8") as file:
                for row, line in enumerate(file):
                    entry = json.loads(line)
                    dense = arrays["dense"][row] if "dense" in arrays else None
                    sparse = None
                    if ends is not None:
                        span = slice(ends[row] - arrays["lengths"][row], ends[row])
                        sparse = SparseVector(arrays["indices"][span], arrays["weights"][span])
                    yield entry["document_id"], entry["ordinal"], Point("", entry["payload"], dense, sparse)
            part += 1


def _write_documents(ledger: Ledger, folder: Path, documents: Any) -> None:  # noqa: ANN401 - records, once
    lines = []
    for document in documents:
        key = VersionKey(document.tenant, document.collection, document.id, document.version)
        files = ledger.originals.folder(key)
        shutil.copyfile(files / "document.json", folder / "texts" / _file_name(document.id))
        if (files / "original").exists():
            shutil.copyfile(files / "original", folder / "originals" / _file_name(document.id))
        values = {name: value for name, value in asdict(document).items() if name not in _OWN}
        lines.append(json.dumps({"document_id": document.id, **values}, ensure_ascii=False))
    _write(folder / "documents.jsonl", "".join(f"{line}\n" for line in lines).encode())


def _write_points(  # noqa: PLR0917 - where from and where to
    indexer: Indexer,
    name: str,
    schema: IndexSchema,
    folder: Path,
    layer: Layer,
    live: Mapping[tuple[str, int], DocumentRecord],
) -> int:
    from safetensors.numpy import save_file

    wanted = (
        point
        for point in indexer.read(name)
        if (point.payload["_document_id"], point.payload["_version"]) in live
    )
    total = 0
    for part, points in enumerate(batches(wanted, _PART_POINTS)):
        entries = [
            {"document_id": p.payload["_document_id"], "ordinal": p.payload["_ordinal"], "payload": p.payload}
            for p in points
        ]
        text = "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries)
        _write(folder / f"{layer}-{part}.jsonl", text.encode())
        save_file(_arrays(points, schema), folder / f"{layer}-{part}.safetensors")
        total += len(points)
    return total


def _arrays(points: Sequence[Point], schema: IndexSchema) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    if schema.dim is not None:
        arrays["dense"] = np.stack([np.asarray(point.dense, np.float32) for point in points])
    if schema.lexical:
        words = [point.sparse for point in points if point.sparse is not None]
        arrays["lengths"] = np.array([len(vector.indices) for vector in words], np.int32)
        arrays["indices"] = np.concatenate([vector.indices for vector in words])
        arrays["weights"] = np.concatenate([vector.values for vector in words])
    return arrays


def _count(document: DocumentRecord, layer: Layer) -> int:
    return {"documents": 1, "passages": document.passages, "units": document.units}[layer]


def _file_name(document_id: str) -> str:
    return derived_id(document_id)


def _incomplete(name: str, why: str) -> IndexingError:
    return IndexingError(
        f"Index {name!r} {why}.", remedy="Run `longleaf verify` and `longleaf repair` first."
    )


def _state(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def require_fits(export: Export, made: Mapping[str, Any], collection: str) -> None:
    """Raise ConflictError unless a collection was made as the exported one was, averages included."""
    differing = [name for name, value in made.items() if export.manifest[name] != value]
    if not differing:
        return
    if differing == ["lexical"] and export.manifest["lexical"]["analyser"] == made["lexical"]["analyser"]:
        why = (
            "its words are weighed by the lengths of its own first documents: scores of the exported ones, "
            "weighed by others, would not compare with them"
        )
    else:
        why = f"was made with other settings ({', '.join(differing)})"
    raise ConflictError(
        f"Collection {collection!r} exists, and {why}.",
        remedy="Import under another name with --collection, or ingest the documents into it.",
    )


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
