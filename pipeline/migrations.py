"""The versions of the ledger's tables: forward only, one step each, all steps in one transaction."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import job_tables
from pipeline.errors import DataVersionError
from pipeline.schema import data_version, tables, versions

assert job_tables.jobs.metadata is tables  # every table is known once this module is

SCHEMA_VERSION = 2


def bring_forward(connection: Connection, where: str, *, migrate: bool) -> int:
    """Make the tables, or change those of an older Longleaf, unless they are as they should be; returns
    the version that was found.

    Raises DataVersionError for data of a newer Longleaf, and of an older one where ``migrate`` is false.
    """
    found = version_of(connection)
    if found is None:
        tables.create_all(connection)
        connection.execute(data_version.insert().values(version=SCHEMA_VERSION))
        return SCHEMA_VERSION
    if found > SCHEMA_VERSION:
        raise DataVersionError(
            f"{where} has data version {found}; this Longleaf knows up to {SCHEMA_VERSION}.",
            remedy="Install the newer Longleaf again, or choose another data directory.",
        )
    if found < SCHEMA_VERSION and not migrate:
        raise DataVersionError(
            f"{where} has data version {found}; this Longleaf needs {SCHEMA_VERSION}.",
            remedy="Make a backup with the Longleaf that wrote it, then run: longleaf migrate",
        )
    for step in range(found, SCHEMA_VERSION):
        _STEPS[step](connection)
    tables.create_all(connection)  # tables that are new
    if found < SCHEMA_VERSION:
        connection.execute(data_version.update().values(version=SCHEMA_VERSION))
    return found


def version_of(connection: Connection) -> int | None:
    """The version of the data, or None where there is none yet."""
    if not sa.inspect(connection).has_table(data_version.name):
        return None
    found: int = connection.execute(sa.select(data_version.c.version)).scalar_one()
    return found


def _to_version_2(connection: Connection) -> None:
    """Numbers of versions are kept count of; versions know more states and who works on them."""
    run = connection.exec_driver_sql
    run("ALTER TABLE documents ADD COLUMN highest INTEGER NOT NULL DEFAULT 0")
    run(
        "UPDATE documents SET highest = coalesce((SELECT max(v.version) FROM versions AS v WHERE"
        " v.tenant = documents.tenant AND v.collection = documents.collection"
        " AND v.document_id = documents.id), 0)"
    )
    run("DROP INDEX versions_not_live")
    run("ALTER TABLE versions RENAME TO versions_1")
    versions.create(connection)
    names = ", ".join(column.name for column in versions.columns if column.name != "writer")
    run(f"INSERT INTO versions ({names}) SELECT {names} FROM versions_1")  # noqa: S608 - names of columns
    run("DROP TABLE versions_1")


_STEPS: dict[int, Callable[[Connection], None]] = {1: _to_version_2}
