"""The tables of ingestion jobs, in the ledger's database: one transaction can change both."""

from __future__ import annotations

import sqlalchemy as sa

from pipeline.schema import NAME, tables

jobs = sa.Table(
    "jobs",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", NAME, nullable=False),
    sa.Column("collection", NAME, nullable=False),
    sa.Column("on_conflict", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float, nullable=True),
    sa.Column("finished", sa.Float, nullable=True),
    sa.Column("waiting", sa.Text, nullable=False, server_default=""),  # for what, when nothing can be done
    sa.Column("idempotency", sa.Text, nullable=True),  # digest of the caller's key
    sa.Column("request", sa.Text, nullable=True),  # digest of what came with it
    sa.UniqueConstraint("tenant", "idempotency"),
)

job_documents = sa.Table(
    "job_documents",
    tables,
    sa.Column("seq", sa.Integer, primary_key=True),  # the order in which they were accepted
    sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id"), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("tenant", NAME, nullable=False),
    sa.Column("collection", NAME, nullable=False),
    sa.Column("document_id", NAME, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=True),
    sa.Column("media_type", sa.Text, nullable=True),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("is_text", sa.Boolean, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("checkpoints", sa.JSON, nullable=False),  # digest of what each finished stage left
    sa.Column("writer", sa.Text, nullable=False, server_default=""),  # who works on it
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("waits", sa.Integer, nullable=False, server_default="0"),
    sa.Column("not_before", sa.Float, nullable=False, server_default="0"),
    sa.Column("finished", sa.Float, nullable=True),
    sa.Column("status", sa.Text, nullable=False, server_default=""),
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    sa.Column("pages", sa.Integer, nullable=False, server_default="0"),
    sa.Column("tokens", sa.Integer, nullable=False, server_default="0"),
    sa.Column("code", sa.Text, nullable=False, server_default=""),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("remedy", sa.Text, nullable=False, server_default=""),
    sa.Index(
        "job_documents_open",
        "tenant",
        "collection",
        "document_id",
        "seq",
        sqlite_where=sa.text("finished IS NULL"),
        postgresql_where=sa.text("finished IS NULL"),
    ),
    sqlite_autoincrement=True,
)

# What happened to a job, without a word of its documents: they are named by their position in it.
job_events = sa.Table(
    "job_events",
    tables,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=True),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("job_events_of_job", "job_id", "seq"),
    sqlite_autoincrement=True,
)

# When each tenant last had its turn.
job_turns = sa.Table(
    "job_turns",
    tables,
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("last", sa.Float, nullable=False),
)
