"""The adapter to a Qdrant server. Imported by ``build`` only: it loads the client's libraries."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdrant_client import QdrantClient

from indexers import _folders
from indexers import _qdrant_wire as wire
from indexers._projection import PAYLOAD
from indexers._qdrant_calls import Calls, ExistsOnServerError, MissingOnServerError
from indexers._qdrant_version import check_version
from pipeline.errors import ConfigurationError, IndexingError, UnavailableError
from pipeline.filters import EVERYTHING, Filter
from pipeline.points import check_dense, check_name, check_schema, check_search, pack
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Match, Point, Vectors

if TYPE_CHECKING:
    from indexers.qdrant import Config

_UPSERT_POINTS = 256
_SEARCHES = 100
_PAGE_POINTS = 1000
_METADATA = "longleaf_index"
_GRPC_MESSAGE_BYTES = 256 << 20


class QdrantIndexer:
    """See :class:`pipeline.seams.Indexer`. Thread-safe; several processes may use one server."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = _client(config)
        self._calls = Calls(config.url, config.attempts)
        self._lock = threading.Lock()
        self._schemas: dict[str, IndexSchema] = {}
        self._range_keys: dict[str, set[str]] = {}
        self._named: dict[str, str | None] = {}
        self._version_known = False
        self._closed = False

    def create(self, name: str, schema: IndexSchema) -> None:
        """Make an empty index; nothing happens if it is there with this schema."""
        existing = self.schema(name)
        check_schema(name, schema, existing)
        if existing is None:
            self._make(name, schema)
        for field, kind in wire.payload_indexes():
            if field not in self._range_keys.get(name, ()):  # also where making was interrupted
                self._index_field(name, field, kind)
                self._range_keys.setdefault(name, set()).add(field)

    def _make(self, name: str, schema: IndexSchema) -> None:
        config = self._config
        arguments = wire.collection(
            schema,
            quantized=config.quantization == "int8",
            exact_below_points=config.exact_below_points,
        )
        described = json.dumps({"name": name, "schema": asdict(schema)}, ensure_ascii=False)
        try:
            self._calls.once(
                "to make a collection",
                lambda: self._client.create_collection(
                    self._place(name),
                    shard_number=config.shard_number,
                    replication_factor=config.replication_factor,
                    write_consistency_factor=config.write_consistency_factor,
                    metadata={_METADATA: described},
                    **arguments,
                ),
            )
        except ExistsOnServerError:  # made by another process since we looked
            check_schema(name, schema, self.schema(name))
        self._named.pop(self._place(name), None)

    def schema(self, name: str) -> IndexSchema | None:
        """The schema it was created with, or None. Asks the server."""
        check_name(name)
        try:
            info = self._ask("for a collection", lambda: self._client.get_collection(self._place(name)))
        except MissingOnServerError:
            self._forget(name)
            return None
        described = _described(info)
        if described is None or described["name"] != name:
            raise IndexingError(
                f"The server's collection {self._place(name)!r} was not made by Longleaf.",
                remedy="Choose another indexer.prefix.",
            )
        schema = IndexSchema(**described["schema"])
        with self._lock:
            self._schemas[name] = schema
            self._named[self._place(name)] = name
            self._range_keys[name] = set(info.payload_schema or {})
        return schema

    def names(self) -> list[str]:
        """All indexes of this prefix, sorted."""
        found = self._ask("for its collections", self._client.get_collections).collections
        places = [c.name for c in found if c.name.startswith(f"{self._config.prefix}-")]
        for place in places:
            if place not in self._named:  # a place has one name for good
                self._named[place] = _name(
                    self._ask("for a collection", lambda place=place: self._client.get_collection(place))
                )
        return sorted(name for place in places if (name := self._named[place]) is not None)

    def drop(self, name: str) -> None:
        """Remove the index from the server."""
        with contextlib.suppress(MissingOnServerError):
            self._ask("to drop a collection", lambda: self._client.delete_collection(self._place(name)))
        self._forget(name)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points, replacing those of equal id. All are checked before any is sent."""
        batch = pack(name, self._index(name), points)
        structs = wire.structs(batch)
        for field in sorted(wire.range_keys(structs)):
            self._index_range(name, field)
        for start in range(0, len(structs), _UPSERT_POINTS):
            part = structs[start : start + _UPSERT_POINTS]
            self._on(
                name,
                "to store points",
                lambda part=part: self._client.upsert(self._place(name), part, wait=True),
            )

    def delete(self, name: str, where: Filter) -> None:
        """Remove every point that matches."""
        self._index(name)
        self._on(
            name,
            "to delete points",
            lambda: self._client.delete(self._place(name), wire.selector(where), wait=True),
        )

    def search(self, name: str, searches: Sequence[IndexSearch]) -> list[list[Match]]:
        """Matches best first, one list a search."""
        schema = self._index(name)
        for search in searches:
            check_search(name, schema, search)
        found: list[list[Match]] = [[] for _ in searches]
        asking = [i for i, s in enumerate(searches) if s.sparse is None or len(s.sparse.indices)]
        for start in range(0, len(asking), _SEARCHES):
            places = asking[start : start + _SEARCHES]
            requests = [wire.request(searches[i], self._config.ef) for i in places]
            answers = self._on(
                name,
                "a search",
                lambda requests=requests: self._client.query_batch_points(
                    self._place(name), requests, consistency=self._consistency
                ),
            )
            for i, answer in zip(places, answers, strict=True):
                found[i] = wire.matches(answer.points)
        return found

    def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of points that match."""
        self._index(name)
        chosen = wire.filter_model(where or EVERYTHING)
        answer = self._on(
            name, "for a count", lambda: self._client.count(self._place(name), chosen, exact=True)
        )
        return int(answer.count)

    def points(self, name: str, where: Filter | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and payload of matching points, in id order."""
        self._index(name)
        return ((str(r.id), wire.payload(r)) for r in self._scroll(name, where, vectors=False))

    def read(self, name: str, where: Filter | None = None) -> Iterator[Point]:
        """Matching points with their vectors, in id order."""
        self._index(name)
        return map(wire.point, self._scroll(name, where, vectors=True))

    def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of these points, by id."""
        schema = self._index(name)
        check_dense(name, schema)
        found = self._on(
            name,
            "for vectors",
            lambda: self._client.retrieve(
                self._place(name),
                list(ids),
                with_payload=False,
                with_vectors=[wire.DENSE, wire.SPARSE] if schema.lexical else [wire.DENSE],
                consistency=self._consistency,
            ),
        )
        return wire.vectors(found)

    def problems(self, name: str) -> list[str]:
        """What the server says of a collection that is not in order."""
        self._index(name)
        info = self._on(name, "for a collection", lambda: self._client.get_collection(self._place(name)))
        if info.status.value != "red":
            return []
        return [f"The server at {self._config.url} says that it has failed: {info.optimizer_status}."]

    def flush(self) -> None:
        """Every write was acknowledged by the server when it returned."""
        self._check_open()

    def optimize(self, name: str) -> None:
        """The server does that by itself."""
        self._index(name)

    def close(self) -> None:
        """Let go of the connections; further calls raise."""
        if not self._closed:
            self._closed = True
            self._client.close()

    @property
    def _consistency(self) -> Any:  # noqa: ANN401 - the client's number or name
        return wire.consistency(self._config.read_consistency)

    def _ask(self, what: str, call: Any) -> Any:  # noqa: ANN401 - the client's many types
        self._check_open()
        self._check_version()
        return self._calls.idempotent(what, call)

    def _check_version(self) -> None:
        """Ask for the server's version, once. A proxy may keep that from us; then it is not known."""
        if self._version_known:
            return
        told = None
        try:
            told = self._calls.idempotent("for its version", self._client.info).version
        except IndexingError:
            pass
        except UnavailableError as error:
            if not isinstance(getattr(error.__cause__, "source", error.__cause__), ValueError):
                raise  # else something answered, with a page of its own
        check_version(self._config.url, told)
        self._version_known = True

    def _on(self, name: str, what: str, call: Any) -> Any:  # noqa: ANN401 - the client's many types
        """Ask about one index, which another process may have dropped since we last saw it."""
        try:
            return self._ask(what, call)
        except MissingOnServerError as error:
            self._forget(name)
            raise _folders.no_index(name) from error

    def _check_open(self) -> None:
        if self._closed:
            raise IndexingError("The index is closed.")

    def _place(self, name: str) -> str:
        return f"{self._config.prefix}-{_folders.folder(Path(), name).name}"

    def _index(self, name: str) -> IndexSchema:
        self._check_open()
        schema = self._schemas.get(name) or self.schema(name)
        if schema is None:
            raise _folders.no_index(name)
        return schema

    def _forget(self, name: str) -> None:
        with self._lock:
            self._schemas.pop(name, None)
            self._named.pop(self._place(name), None)
            self._range_keys.pop(name, None)

    def _index_range(self, name: str, field: str) -> None:
        known = self._range_keys.setdefault(name, set())
        if field not in known and len(known) <= wire.MAX_RANGE_INDEXES:
            self._index_field(name, field, wire.RANGE_INDEX)
            known.add(field)

    def _index_field(self, name: str, field: str, kind: Any) -> None:  # noqa: ANN401 - the client's schema types
        self._on(
            name,
            "to index a field",
            lambda: self._client.create_payload_index(self._place(name), field, kind, wait=True),
        )

    def _scroll(self, name: str, where: Filter | None, *, vectors: bool) -> Iterator[Any]:
        chosen, start = wire.filter_model(where or EVERYTHING), None
        while True:
            records, start = self._on(
                name,
                "for a page of points",
                lambda start=start: self._client.scroll(
                    self._place(name),
                    chosen,
                    limit=_PAGE_POINTS,
                    offset=start,
                    with_payload=[PAYLOAD],
                    with_vectors=vectors,
                    consistency=self._consistency,
                ),
            )
            yield from records
            if start is None:
                return


def _client(config: Config) -> QdrantClient:
    """The client. Raises ConfigurationError for an address or certificate that cannot be used."""
    options: dict[str, Any] = {}
    grpc_options: dict[str, Any] = {
        "grpc.max_receive_message_length": _GRPC_MESSAGE_BYTES,
        "grpc.max_send_message_length": _GRPC_MESSAGE_BYTES,
    }
    try:
        if config.ca_certificate is not None:
            options["verify"] = ssl.create_default_context(cafile=config.ca_certificate)
            grpc_options["root_certificates"] = config.ca_certificate.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a key over plain HTTP: `longleaf doctor` tells of it
            return QdrantClient(
                url=config.url,
                api_key=config.api_key.get_secret_value() if config.api_key else None,
                grpc_port=config.grpc_port,
                prefer_grpc=config.prefer_grpc,
                timeout=config.timeout_seconds,
                check_compatibility=False,
                grpc_options=grpc_options,
                trust_env=False,
                **options,
            )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The Qdrant server at {config.url!r} cannot be used: {error}.",
            remedy="Check indexer.url and indexer.ca_certificate.",
        ) from error


def _name(info: Any) -> str | None:  # noqa: ANN401 - the client's CollectionInfo
    described = _described(info)
    return described["name"] if described is not None else None


def _described(info: Any) -> dict[str, Any] | None:  # noqa: ANN401 - the client's CollectionInfo
    text = (info.config.metadata or {}).get(_METADATA)
    return json.loads(text) if isinstance(text, str) else None
