"""The tables of the ledger, for SQLite and for PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

tables = sa.MetaData()

# Names sort by code point in both databases, so that cursors mean the same everywhere.
NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

VERSION_STATES = ("staged", "live", "retired", "shelved", "kept")

data_version = sa.Table("data_version", tables, sa.Column("version", sa.Integer, nullable=False))

collections = sa.Table(
    "collections",
    tables,
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("chunking", sa.JSON, nullable=False),
    sa.Column("lexical", sa.JSON, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("dropped", sa.Boolean, nullable=False, default=False),
)

documents = sa.Table(
    "documents",
    tables,
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("collection", NAME, primary_key=True),
    sa.Column("id", NAME, primary_key=True),
    sa.Column("live", sa.Integer, nullable=True),  # NULL: no version has been published, or deleted
    sa.Column("highest", sa.Integer, nullable=False, server_default="0"),  # the last number given out
    sa.Column("created", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(["tenant", "collection"], ["collections.tenant", "collections.name"]),
)

versions = sa.Table(
    "versions",
    tables,
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("collection", NAME, primary_key=True),
    sa.Column("document_id", NAME, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, sa.CheckConstraint(f"state in {VERSION_STATES}"), nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("source_name", sa.Text, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("chars", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("passages", sa.Integer, nullable=False),
    sa.Column("units", sa.Integer, nullable=False),
    sa.Column("windowing", sa.Text, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("writer", sa.Text, nullable=False, server_default=""),  # who writes or removes it
    sa.ForeignKeyConstraint(
        ["tenant", "collection", "document_id"],
        ["documents.tenant", "documents.collection", "documents.id"],
    ),
    sa.Index(
        "versions_not_live",
        "state",
        sqlite_where=sa.text("state <> 'live'"),
        postgresql_where=sa.text("state <> 'live'"),
    ),
)

metadata_fields = sa.Table(
    "metadata_fields",
    tables,
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("collection", NAME, primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("type", NAME, primary_key=True),
    sa.Column("documents", sa.Integer, nullable=False),  # how many live ones have it
    sa.ForeignKeyConstraint(["tenant", "collection"], ["collections.tenant", "collections.name"]),
)

# What was deleted, by the name of its folder, which says nothing of its content. Numbers up to `version`
# are not given out again, and a restored backup gives up versions up to it.
tombstones = sa.Table(
    "tombstones",
    tables,
    sa.Column("folder", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)

# Processes that may write. One whose row is gone or out of date is dead, and others finish its work.
writers = sa.Table(
    "writers",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("until", sa.Float, nullable=False),
)
