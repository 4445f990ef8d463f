"""How a version passes from staged to live to retired: the statements, inside the ledger's transactions."""

from __future__ import annotations

import time
from dataclasses import fields

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from pipeline.database import collections, documents, metadata_fields, versions
from pipeline.errors import ConflictError
from pipeline.metadata import field_types
from pipeline.records import Published, VersionKey, VersionRecord

VERSION_FIELDS = tuple(field.name for field in fields(VersionRecord) if field.name != "document_id")

_KEY = (versions.c.tenant, versions.c.collection, versions.c.document_id, versions.c.version)

Conditions = tuple[sa.ColumnElement[bool], ...]


def stage(connection: Connection, tenant: str, collection: str, record: VersionRecord) -> VersionKey:
    """Insert a staged version under the next number, and the document if it is new."""
    now = time.time()
    identity = {"tenant": tenant, "collection": collection}
    document = {**identity, "id": record.document_id, "created": now}
    connection.execute(insert(documents).values(document).on_conflict_do_nothing())
    highest = sa.select(sa.func.coalesce(sa.func.max(versions.c.version), 0)).where(
        *inside(versions, tenant, collection), versions.c.document_id == record.document_id
    )
    key = VersionKey(tenant, collection, record.document_id, connection.execute(highest).scalar_one() + 1)
    values = {name: getattr(record, name) for name in VERSION_FIELDS}
    values |= {"metadata": dict(record.metadata), "warnings": list(record.warnings)}
    values |= {"document_id": key.document_id, "version": key.version, "state": "staged", "created": now}
    connection.execute(sa.insert(versions).values(**identity, **values))
    return key


def publish(connection: Connection, key: VersionKey) -> Published:
    """Make a staged version the live one, unless a newer one is."""
    state = connection.execute(sa.select(versions.c.state).where(*is_version(key))).scalar_one_or_none()
    if state != "staged":
        raise ConflictError(f"Version {key.version} of {key.document_id!r} is {state or 'gone'}, not staged.")
    live = connection.execute(sa.select(documents.c.live).where(*_is_document(key))).scalar_one()
    if live is not None and live > key.version:
        _set_state(connection, key, "retired")
        return Published(live, (key,), superseded=True)
    _set_state(connection, key, "live")
    connection.execute(sa.update(documents).where(*_is_document(key)).values(live=key.version))
    _count_fields(connection, key, 1)
    if live is None:
        return Published(0)
    old = VersionKey(key.tenant, key.collection, key.document_id, live)
    _set_state(connection, old, "retired")
    _count_fields(connection, old, -1)
    return Published(live, (old,))


def hide(connection: Connection, tenant: str, collection: str, document_id: str) -> VersionKey | None:
    """Retire the live version of a document and put none in its place; None if there was none."""
    named = VersionKey(tenant, collection, document_id, 0)
    live = connection.execute(sa.select(documents.c.live).where(*_is_document(named))).scalar_one_or_none()
    if live is None:
        return None
    key = VersionKey(tenant, collection, document_id, live)
    _set_state(connection, key, "retired")
    connection.execute(sa.update(documents).where(*_is_document(key)).values(live=None))
    _count_fields(connection, key, -1)
    return key


def give_up(connection: Connection, key: VersionKey) -> bool:
    """Retire a version if it is still staged. False if it is live or gone."""
    state = connection.execute(sa.select(versions.c.state).where(*is_version(key))).scalar_one_or_none()
    if state == "staged":
        _set_state(connection, key, "retired")
    return state in ("staged", "retired")


def leftovers(connection: Connection) -> list[VersionKey]:
    """Every version that is not live."""
    query = sa.select(*_KEY).where(versions.c.state != "live").order_by(*_KEY)
    return [VersionKey(*row) for row in connection.execute(query)]


def erase(connection: Connection, key: VersionKey) -> None:
    """Delete a version that is not live, and its document when nothing else is left of it."""
    connection.execute(sa.delete(versions).where(*is_version(key), versions.c.state != "live"))
    mine = (*inside(versions, key.tenant, key.collection), versions.c.document_id == key.document_id)
    others = sa.select(versions.c.version).where(*mine).exists()
    connection.execute(sa.delete(documents).where(*_is_document(key), documents.c.live.is_(None), ~others))


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


def _set_state(connection: Connection, key: VersionKey, state: str) -> None:
    connection.execute(sa.update(versions).where(*is_version(key)).values(state=state))


def _count_fields(connection: Connection, key: VersionKey, change: int) -> None:
    """Keep how many live documents have each metadata field, with each type."""
    metadata = connection.execute(sa.select(versions.c.metadata).where(*is_version(key))).scalar_one()
    for name, kind in field_types(metadata).items():
        row = {"tenant": key.tenant, "collection": key.collection, "name": name, "type": kind}
        counted = insert(metadata_fields).values(**row, documents=change)
        total = metadata_fields.c.documents + change
        connection.execute(counted.on_conflict_do_update(index_elements=list(row), set_={"documents": total}))
    if change < 0:
        mine = inside(metadata_fields, key.tenant, key.collection)
        connection.execute(sa.delete(metadata_fields).where(*mine, metadata_fields.c.documents <= 0))
