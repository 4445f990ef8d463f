"""Bringing an exported collection into an installation, with whatever index it has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import learnt
from pipeline.errors import DiskFullError, IndexingError, LongleafError, NotFoundError
from pipeline.layers import LAYERS, Layer, index_name, of_versions, point_id, schemas
from pipeline.ledger import Ledger
from pipeline.moving import Export, Moved, batches, require_fits
from pipeline.originals import Stored, disk_errors
from pipeline.read import wire
from pipeline.records import CollectionRecord, VersionKey, VersionRecord
from pipeline.seams import Indexer
from pipeline.storing import Store
from pipeline.types import Point

_UPSERT_POINTS = 2_000


def import_collection(
    ledger: Ledger, indexer: Indexer, folder: Path, *, tenant: str = "default", collection: str | None = None
) -> Moved:
    """Read what :func:`pipeline.moving.export_collection` wrote; every file is checked first.

    A collection of that name must have been made the same way. Documents that it has with the same content
    only get their points, which is how a collection is moved to another index of the same installation;
    others become live together, in one transaction, once all of their points are in. What the embedder had
    learnt comes along where nothing was learnt yet. Raises DamagedFileError, ConflictError, UnavailableError
    while another process ingests, and DiskFullError; after an error readers see what they saw before.
    """
    export = Export(folder)
    name = collection or export.manifest["collection"]
    ledger.own_ingestion()
    store = Store(ledger, indexer)
    store.recover()
    _check_space(ledger, export)
    record = _collection(ledger, export, tenant, name)
    for index, schema in schemas(record, export.manifest["dims"]["passages"]).items():
        indexer.create(index, schema)
    there, new = _sorted_out(ledger, export, tenant, name)
    keys = ledger.stage(tenant, name, new) if new else []
    try:
        ledger.originals.write([_stored(export, key) for key in keys])
        owners = {key.document_id: key for key in (*there, *keys)}
        written = _write_points(indexer, export, owners)
        _check_points(indexer, export, owners)
        published = ledger.publish(keys)
    except BaseException:
        with suppress(LongleafError):  # the first error is the one to tell; recovery does the rest
            store.remove(ledger.retire(keys))
        raise
    store.remove([old for each in published for old in each.retired])
    for layer in LAYERS:
        with suppress(DiskFullError):  # all is there; what only makes it faster waits for room
            indexer.optimize(index_name(tenant, name, layer))
    return Moved(name, len(owners), written, len(there))


def _check_space(ledger: Ledger, export: Export) -> None:
    needed = 2 * sum(size for size, _ in export.manifest["files"].values())
    free = shutil.disk_usage(ledger.root).free
    if free < needed:
        raise DiskFullError(
            f"{ledger.root} has {free:,} bytes free; importing needs about {needed:,}.",
            remedy="Free space on that disk and try again.",
        )


def _collection(ledger: Ledger, export: Export, tenant: str, name: str) -> CollectionRecord:
    manifest = export.manifest
    try:
        record = ledger.collection(tenant, name)
    except NotFoundError:
        found = learnt.made_with(export.folder, manifest["fingerprint"])
        if found is not None:
            with disk_errors(ledger.root):
                learnt.take_over(ledger.root, found, (each.fingerprint for each in ledger.collections()))
        made = {key: manifest[key] for key in ("fingerprint", "chunking", "lexical")}
        return ledger.create_collection(tenant, name, **made)
    made = {"fingerprint": record.fingerprint, "chunking": record.chunking, "lexical": record.lexical}
    require_fits(export, made, name)
    return record


def _sorted_out(
    ledger: Ledger, export: Export, tenant: str, name: str
) -> tuple[list[VersionKey], list[VersionRecord]]:
    """Documents that are there with the same content, and those that are not."""
    there, new = [], []
    for values in export.documents():
        document = VersionRecord(**{**values, "warnings": tuple(values["warnings"])})
        live = ledger.find(tenant, name, document.document_id)
        if live is not None and (live.digest, live.passages, live.units) == (
            document.digest,
            document.passages,
            document.units,
        ):
            there.append(VersionKey(tenant, name, live.id, live.version))
        else:
            new.append(document)
    return there, new


def _stored(export: Export, key: VersionKey) -> Stored:
    document = wire.decode(export.text(key.document_id))
    return Stored(key, document, export.original(key.document_id))


def _write_points(indexer: Indexer, export: Export, owners: Mapping[str, VersionKey]) -> int:
    written = 0
    for layer in LAYERS:
        for batch in batches(_points(export, layer, owners), _UPSERT_POINTS):
            key = next(iter(owners.values()))
            indexer.upsert(index_name(key.tenant, key.collection, layer), batch)
            written += len(batch)
    indexer.flush()
    return written


def _points(export: Export, layer: Layer, owners: Mapping[str, VersionKey]) -> Iterator[Point]:
    """Points under the ids and versions that they have here."""
    for document_id, ordinal, point in export.points(layer):
        key = owners[document_id]
        payload: dict[str, Any] = {**point.payload, "_version": key.version}
        yield replace(point, id=point_id(key, layer, ordinal), payload=payload)


def _check_points(indexer: Indexer, export: Export, owners: Mapping[str, VersionKey]) -> None:
    for layer in LAYERS:
        found = 0
        for keys in batches(owners.values(), 100):
            name = index_name(keys[0].tenant, keys[0].collection, layer)
            found += indexer.count(name, of_versions(keys))
        if found != export.manifest["points"][layer]:
            raise IndexingError(
                f"The {layer} index has {found} imported points, not {export.manifest['points'][layer]}."
            )
