"""A Qdrant server or cluster: the same engine and the same stored form as the embedded default.

Moving from one to the other changes settings, not results. Every index is one collection of the server,
called by a prefix and a hash; its real name and schema are in the collection's metadata. Writes return
once the server has them in its log. The server builds its graphs by itself while it answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.seams import Indexer

Consistency = Literal["majority", "quorum", "all"]


class Config(BaseModel):
    """Where the server is and how it spreads what it gets. A collection keeps the numbers of shards and
    replicas it was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = "http://127.0.0.1:6333"
    """Address of the server's HTTP interface; `https://` encrypts both interfaces."""
    api_key: SecretStr | None = None
    """Key that the server asks for."""
    ca_certificate: Path | None = None
    """PEM file of the authority that signed the server's certificate; null takes the system's."""
    prefer_grpc: bool = False
    """Use gRPC, which is faster for bulk loads, where the client can."""
    grpc_port: int = Field(default=6334, ge=1, le=65535)
    """TCP port of the server's gRPC interface."""
    prefix: str = Field(default="longleaf", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    """How the server's collections that belong to this installation begin."""
    shard_number: int | None = Field(default=None, ge=1)
    """Shards of a new collection; null leaves it to the server (one a node)."""
    replication_factor: int | None = Field(default=None, ge=1)
    """Copies of each shard of a new collection; null leaves it to the server (one)."""
    write_consistency_factor: int | None = Field(default=None, ge=1)
    """Copies that must have a write before it counts; null leaves it to the server (one)."""
    read_consistency: int | Consistency | None = None
    """Copies that are asked and must agree: a number, `majority`, `quorum` or `all`; null asks one."""
    quantization: Literal["none", "int8"] = "none"
    """`int8` keeps one byte a dimension in memory and rescores with the stored vectors."""
    exact_below_points: int = Field(default=250_000, ge=1)
    """Up to so many vectors a segment of the server is scanned exactly; beyond that it builds a graph, which
    is faster and misses some; for new collections."""
    ef: int = Field(default=256, ge=16, le=4096)
    """Candidates that a graph search keeps: more is slower and finds more."""
    timeout_seconds: int = Field(default=30, ge=1)
    """Longest wait for one answer."""
    attempts: int = Field(default=4, ge=1, le=10)
    """Attempts of a call that found the server down or overloaded, if repeating it does no harm."""


TINY = Config(attempts=2)


def build(config: Config) -> Indexer:
    """Connect lazily: whether the server answers is known at the first call."""
    from indexers._qdrant_indexer import QdrantIndexer  # loads the client

    return QdrantIndexer(config)
