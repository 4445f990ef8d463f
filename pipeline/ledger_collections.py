"""The part of the ledger that knows collections, and what all documents of one are together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import lifecycle
from pipeline.database import Database, insert
from pipeline.errors import ConflictError, NotFoundError
from pipeline.lifecycle import inside
from pipeline.metadata import merge_types
from pipeline.records import CollectionRecord, Totals, VersionKey, check_name
from pipeline.schema import collections, documents, metadata_fields, versions
from pipeline.writers import Ownership

LIVE = versions.join(
    documents,
    sa.and_(
        versions.c.tenant == documents.c.tenant,
        versions.c.collection == documents.c.collection,
        versions.c.document_id == documents.c.id,
        versions.c.version == documents.c.live,
    ),
)


_MADE_WITH = ("fingerprint", "chunking", "lexical")


@dataclass(frozen=True, slots=True)
class Cut:
    """How a chunker cut one version of a document."""

    tokens: int
    passages: int
    units: int
    windowing: str


class CollectionLedger:
    """Collections in a database, on behalf of one process."""

    database: Database
    ownership: Ownership

    def create_collection(
        self,
        tenant: str,
        name: str,
        *,
        fingerprint: str,
        chunking: Mapping[str, Any],
        lexical: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> CollectionRecord:
        """Make a collection. Raises ConflictError if there is one of that name already."""
        row = {
            "tenant": check_name("tenant", tenant),
            "name": check_name("collection", name),
            "fingerprint": fingerprint,
            "chunking": dict(chunking),
            "lexical": dict(lexical),
            "settings": dict(settings or {}),
            "created": time.time(),
            "dropped": False,
        }
        with self.database.write() as connection:
            new = insert(connection, collections).values(row).on_conflict_do_nothing()
            if connection.execute(new.returning(collections.c.name)).one_or_none() is None:
                raise ConflictError(
                    f"There is already a collection {name!r}.",
                    remedy="Choose another name, or delete it first.",
                )
        return self.collection(tenant, name)

    def collection(self, tenant: str, name: str) -> CollectionRecord:
        """One collection. Raises NotFoundError."""
        return self.database.memo.of(("collection", tenant, name), lambda: self._collection(tenant, name))

    def _collection(self, tenant: str, name: str) -> CollectionRecord:
        check_name("tenant", tenant)
        check_name("collection", name)
        query = sa.select(collections).where(
            collections.c.tenant == tenant, collections.c.name == name, ~collections.c.dropped
        )
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"There is no collection {name!r}.", remedy="Ingest a document into it to make it."
            )
        return _collection(row)

    def collections(self, tenant: str | None = None) -> list[CollectionRecord]:
        """Every collection, of one tenant or of all, by tenant and name."""
        query = sa.select(collections).where(~collections.c.dropped)
        if tenant is not None:
            query = query.where(collections.c.tenant == tenant)
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(collections.c.tenant, collections.c.name)).all()
        return [_collection(row) for row in rows]

    def _drop(self, tenant: str, name: str, also: Callable[[Connection], None]) -> None:
        """Hide a collection from readers; what ``also`` does happens in the same transaction."""
        self.collection(tenant, name)
        with self.database.write() as connection:
            connection.execute(
                sa.update(collections).where(*inside(collections, tenant, name)).values(dropped=True)
            )
            connection.execute(sa.update(documents).where(*inside(documents, tenant, name)).values(live=None))
            retired = {"state": "retired", "writer": self.ownership.id}
            connection.execute(sa.update(versions).where(*inside(versions, tenant, name)).values(retired))
            _bury_all(connection, tenant, name)
            also(connection)

    def dropped_collections(self) -> list[tuple[str, str]]:
        """Tenant and name of collections that are hidden and not yet forgotten."""
        query = sa.select(collections.c.tenant, collections.c.name).where(collections.c.dropped)
        with self.database.read() as connection:
            return [(row.tenant, row.name) for row in connection.execute(query)]

    def forget_collection(self, tenant: str, name: str) -> None:
        """Erase the rows of a dropped collection, once nothing else of it is left."""
        with self.database.write() as connection:
            _bury_all(connection, tenant, name)
            for table in (versions, documents, metadata_fields):
                connection.execute(sa.delete(table).where(*inside(table, tenant, name)))
            connection.execute(
                sa.delete(collections).where(*inside(collections, tenant, name), collections.c.dropped)
            )

    def begin_generation(self, target: CollectionRecord, generation: int) -> None:
        """Note that this generation of the collection's indexes is being built, and with what."""
        made_with = {name: getattr(target, name) for name in _MADE_WITH}
        settings = {**target.settings, "building": generation, "building_with": made_with}
        named = inside(collections, target.tenant, target.name)
        with self.database.write() as connection:
            connection.execute(sa.update(collections).where(*named).values(settings=settings))

    def switch_generation(
        self, target: CollectionRecord, generation: int, cuts: Mapping[VersionKey, Cut]
    ) -> None:
        """Make the collection what ``target`` says, its documents cut as given, and its readers see this
        generation of its indexes: all in one transaction.

        Raises ConflictError if its live documents are not those that were cut.
        """
        named = inside(collections, target.tenant, target.name)
        columns = {name: getattr(target, name) for name in _MADE_WITH}
        with self.database.write() as connection:
            live = sa.select(documents.c.id, documents.c.live).where(
                *inside(documents, target.tenant, target.name), documents.c.live.is_not(None)
            )
            now = {VersionKey(target.tenant, target.name, *row) for row in connection.execute(live)}
            if now != set(cuts):
                raise ConflictError(
                    f"Documents of {target.name!r} changed while it was indexed anew.", remedy="Do it again."
                )
            for key, cut in cuts.items():
                connection.execute(
                    sa.update(versions).where(*lifecycle.is_version(key)).values(**asdict(cut))
                )
            kept = {k: v for k, v in target.settings.items() if k not in ("building", "building_with")}
            settings = {**kept, "generation": generation}
            connection.execute(sa.update(collections).where(*named).values(**columns, settings=settings))

    def totals(self, tenant: str, name: str) -> Totals:
        """Sums over the live documents of a collection. Raises NotFoundError."""
        self.collection(tenant, name)
        sums = (
            sa.cast(sa.func.coalesce(sa.func.sum(versions.c[field.name]), 0), sa.BigInteger)
            for field in fields(Totals)[1:]
        )
        query = sa.select(sa.func.count(), *sums).select_from(LIVE).where(*inside(versions, tenant, name))
        with self.database.read() as connection:
            return Totals(*map(int, connection.execute(query).one()))

    def metadata_fields(self, tenant: str, collection: str) -> dict[str, str]:
        """Type of every metadata field that a live document has, by dotted path."""
        question = ("fields", tenant, collection)
        return dict(self.database.memo.of(question, lambda: self._fields(tenant, collection)))

    def _fields(self, tenant: str, collection: str) -> dict[str, str]:
        query = (
            sa.select(metadata_fields.c.name, metadata_fields.c.type)
            .where(*inside(metadata_fields, tenant, collection))
            .order_by(metadata_fields.c.name)
        )
        types: dict[str, str] = {}
        with self.database.read() as connection:
            for name, kind in connection.execute(query):
                types[name] = merge_types(kind, types[name]) if name in types else kind
        return types


def utc(seconds: float) -> datetime:
    """A time of the database."""
    return datetime.fromtimestamp(seconds, UTC)


def _collection(row: Any) -> CollectionRecord:  # noqa: ANN401 - a row of `collections`
    values = {field.name: getattr(row, field.name) for field in fields(CollectionRecord)}
    return CollectionRecord(**{**values, "created": utc(row.created)})


def _bury_all(connection: Connection, tenant: str, name: str) -> None:
    for document_id in lifecycle.names(connection, tenant, name):
        lifecycle.bury(connection, VersionKey(tenant, name, document_id, 0))
