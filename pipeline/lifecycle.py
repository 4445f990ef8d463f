"""How a version passes from staged to live to retired or kept: statements inside the ledger's transactions.

A number is never given out twice for one document, not even after it was deleted: the document's row
counts them while it exists, its tombstone afterwards. So whatever is remembered by a version's key, in
caches of texts or in an index, can never be taken for something else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import writers
from pipeline.database import insert
from pipeline.errors import ConflictError
from pipeline.metadata import field_types
from pipeline.records import Published, VersionKey, VersionRecord, folder_of
from pipeline.schema import collections, documents, metadata_fields, tombstones, versions

VERSION_FIELDS = tuple(field.name for field in fields(VersionRecord) if field.name != "document_id")

_KEY = (versions.c.tenant, versions.c.collection, versions.c.document_id, versions.c.version)

SHOWN = ("live", "shelved", "kept")
"""States of versions that readers may ask for."""

Conditions = tuple[sa.ColumnElement[bool], ...]


def stage(
    connection: Connection, tenant: str, collection: str, record: VersionRecord, writer: str
) -> VersionKey:
    """Insert a staged version under the next number, and the document if it is new."""
    now = time.time()
    identity = {"tenant": tenant, "collection": collection}
    named = VersionKey(tenant, collection, record.document_id, 0)
    buried = sa.select(tombstones.c.version).where(tombstones.c.folder == folder_of(named))
    highest = connection.execute(buried).scalar_one_or_none() or 0
    document = {**identity, "id": record.document_id, "highest": highest, "created": now}
    connection.execute(insert(connection, documents).values(document).on_conflict_do_nothing())
    counted = sa.update(documents).where(*_is_document(named)).values(highest=documents.c.highest + 1)
    number = connection.execute(counted.returning(documents.c.highest)).scalar_one()
    values = {name: getattr(record, name) for name in VERSION_FIELDS}
    values |= {"metadata": dict(record.metadata), "warnings": list(record.warnings)}
    values |= {"document_id": record.document_id, "version": number, "state": "staged", "created": now}
    connection.execute(sa.insert(versions).values(**identity, **values, writer=writer))
    return VersionKey(tenant, collection, record.document_id, number)


def publish(connection: Connection, key: VersionKey, writer: str, *, keep: bool = False) -> Published:
    """Make a staged version the live one, unless a newer one is. ``keep`` shelves the one before instead
    of retiring it."""
    state = connection.execute(sa.select(versions.c.state).where(*is_version(key))).scalar_one_or_none()
    if state != "staged":
        raise ConflictError(f"Version {key.version} of {key.document_id!r} is {state or 'gone'}, not staged.")
    live = connection.execute(sa.select(documents.c.live).where(*_is_document(key))).scalar_one()
    if live is not None and live > key.version:
        _set_state(connection, key, "retired", writer)
        return Published(live, (key,), superseded=True)
    _set_state(connection, key, "live", writer)
    connection.execute(sa.update(documents).where(*_is_document(key)).values(live=key.version))
    _count_fields(connection, key, 1)
    if live is None:
        return Published(0)
    old = VersionKey(key.tenant, key.collection, key.document_id, live)
    _set_state(connection, old, "shelved" if keep else "retired", writer)
    _count_fields(connection, old, -1)
    return Published(live, shelved=(old,)) if keep else Published(live, (old,))


def hide(
    connection: Connection, tenant: str, collection: str, document_id: str, writer: str
) -> list[VersionKey]:
    """Retire every published version of a document; the live one comes first. Empty if there is none."""
    named = VersionKey(tenant, collection, document_id, 0)
    live = connection.execute(sa.select(documents.c.live).where(*_is_document(named))).scalar_one_or_none()
    if live is None:
        return []
    mine = (*inside(versions, tenant, collection), versions.c.document_id == document_id)
    shown = sa.select(versions.c.version).where(*mine, versions.c.state.in_(SHOWN))
    numbers = sorted(connection.execute(shown).scalars(), key=lambda n: n != live)
    keys = [VersionKey(tenant, collection, document_id, number) for number in numbers]
    for key in keys:
        _set_state(connection, key, "retired", writer)
    connection.execute(sa.update(documents).where(*_is_document(named)).values(live=None))
    _count_fields(connection, keys[0], -1)
    bury(connection, named)
    return keys


def bury(connection: Connection, named: VersionKey) -> None:
    """Leave a tombstone: no number that the document has used is given out again."""
    highest = sa.select(documents.c.highest).where(*_is_document(named))
    _lay(connection, named, connection.execute(highest).scalar_one())


def bury_unborn(connection: Connection, named: VersionKey) -> None:
    """Leave a tombstone for what was deleted before it had a version: it takes a number of its own, so that
    a backup of when it was on its way is known to be older."""
    counted = sa.update(documents).where(*_is_document(named)).values(highest=documents.c.highest + 1)
    number = connection.execute(counted.returning(documents.c.highest)).scalar_one_or_none()
    if number is None:
        known = sa.select(tombstones.c.version).where(tombstones.c.folder == folder_of(named))
        number = (connection.execute(known).scalar_one_or_none() or 0) + 1
    _lay(connection, named, number)


def names(connection: Connection, tenant: str, collection: str) -> set[str]:
    """Ids of all documents of a collection, hidden ones too."""
    inner = sa.select(documents.c.id).where(*inside(documents, tenant, collection))
    return set(connection.execute(inner).scalars())


def graves(connection: Connection, tenant: str, collection: str, ids: Iterable[str]) -> dict[str, int]:
    """The tombstones of these documents, by the name of their folder."""
    folders = [folder_of(VersionKey(tenant, collection, name, 0)) for name in ids]
    found: dict[str, int] = {}
    for i in range(0, len(folders), 500):
        laid = sa.select(tombstones).where(tombstones.c.folder.in_(folders[i : i + 500]))
        found.update({row.folder: row.version for row in connection.execute(laid)})
    return found


def _lay(connection: Connection, named: VersionKey, version: int) -> None:
    row = {"folder": folder_of(named), "version": version}
    laid = insert(connection, tombstones).values(row)
    connection.execute(laid.on_conflict_do_update(index_elements=["folder"], set_={"version": version}))


def give_up(connection: Connection, key: VersionKey, writer: str) -> bool:
    """Retire a version if it is still staged. True if nobody can see it: also when it is gone, erased by
    whoever took this process for dead, which may have missed points that were still being written."""
    state = connection.execute(sa.select(versions.c.state).where(*is_version(key))).scalar_one_or_none()
    if state in ("staged", "retired"):
        _set_state(connection, key, "retired", writer)
    return state in ("staged", "retired", None)


def leftovers(connection: Connection, states: tuple[str, ...], writer: str) -> list[VersionKey]:
    """Versions in these states that this writer works on, or nobody who is alive."""
    orphaned = versions.c.writer.not_in(writers.alive())
    query = sa.select(*_KEY).where(
        versions.c.state.in_(states), sa.or_(versions.c.writer == writer, orphaned)
    )
    return [VersionKey(*row) for row in connection.execute(query.order_by(*_KEY))]


def keep(connection: Connection, key: VersionKey) -> None:
    """A shelved version whose points are gone from the index is kept."""
    kept = sa.update(versions).where(*is_version(key), versions.c.state == "shelved")
    connection.execute(kept.values(state="kept", writer=""))


def erase(connection: Connection, key: VersionKey) -> None:
    """Delete a version that is staged or retired, and its document when nothing else is left of it."""
    gone = versions.c.state.in_(("staged", "retired"))
    connection.execute(sa.delete(versions).where(*is_version(key), gone))
    mine = (*inside(versions, key.tenant, key.collection), versions.c.document_id == key.document_id)
    document = sa.select(documents.c.live).where(*_is_document(key), documents.c.live.is_(None))
    others = sa.select(versions.c.version).where(*mine).limit(1)
    if connection.execute(document).one_or_none() and not connection.execute(others).one_or_none():
        bury(connection, key)
        connection.execute(sa.delete(documents).where(*_is_document(key)))


def inside(table: sa.Table, tenant: str, collection: str) -> Conditions:
    """Rows of one collection."""
    name = table.c.name if table is collections else table.c.collection
    return table.c.tenant == tenant, name == collection


def is_version(key: VersionKey) -> Conditions:
    """The row of one version."""
    return (
        *inside(versions, key.tenant, key.collection),
        versions.c.document_id == key.document_id,
        versions.c.version == key.version,
    )


def _is_document(key: VersionKey) -> Conditions:
    return *inside(documents, key.tenant, key.collection), documents.c.id == key.document_id


def _set_state(connection: Connection, key: VersionKey, state: str, writer: str) -> None:
    connection.execute(sa.update(versions).where(*is_version(key)).values(state=state, writer=writer))


def _count_fields(connection: Connection, key: VersionKey, change: int) -> None:
    """Keep how many live documents have each metadata field, with each type."""
    metadata = connection.execute(sa.select(versions.c.metadata).where(*is_version(key))).scalar_one()
    for name, kind in field_types(metadata).items():
        row = {"tenant": key.tenant, "collection": key.collection, "name": name, "type": kind}
        counted = insert(connection, metadata_fields).values(**row, documents=change)
        total = metadata_fields.c.documents + change
        connection.execute(counted.on_conflict_do_update(index_elements=list(row), set_={"documents": total}))
    if change < 0:
        mine = inside(metadata_fields, key.tenant, key.collection)
        connection.execute(sa.delete(metadata_fields).where(*mine, metadata_fields.c.documents <= 0))
