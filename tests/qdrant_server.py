"""A Qdrant server for tests: it takes what Qdrant's OpenAPI document allows, and answers from the engine.

Every request, its query string among it, and every answer is validated against the published document
(``tests/data/qdrant_openapi.json``), more strictly than the server does: a property that the document does
not name is refused. What it answers comes from the embedded engine, so scores and filters are Qdrant's own.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import qdrant_edge as edge

from indexers._edge_models import condition

DOCUMENT = json.loads((Path(__file__).parent / "data" / "qdrant_openapi.json").read_text())


class RefusedError(Exception):
    """Answered with this status."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


def strict(schema: Any) -> Any:
    """OpenAPI 3.0's dialect as JSON Schema, with unknown properties refused."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema == {"nullable": True}:
        return {"type": "null"}
    made = {key: strict(value) for key, value in schema.items() if key != "nullable"}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


SCHEMAS = strict(DOCUMENT["components"]["schemas"])


def validator(schema: Any) -> Any:
    return jsonschema_rs.validator_for({**strict(schema), "components": {"schemas": SCHEMAS}})


class Operation:
    """One call of the document."""

    def __init__(self, method: str, path: str, described: dict[str, Any]) -> None:
        self.method, self.path = method.upper(), path
        self.pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        body = described.get("requestBody")
        content = "application/json"
        self.body = validator(body["content"][content]["schema"]) if body else None
        self.answer = validator(described["responses"]["200"]["content"][content]["schema"])
        self.query = {p["name"]: p["schema"] for p in described.get("parameters", ()) if p["in"] == "query"}
        self.checks = {name: validator(schema) for name, schema in self.query.items()}

    def check(self, query: dict[str, list[str]], body: Any) -> None:
        for name, (text, *_) in query.items():
            if name not in self.checks:
                raise RefusedError(400, f"{self.path} has no parameter {name!r}")
            values = [text, *([json.loads(text)] if re.fullmatch(r"true|false|\d+", text) else [])]
            if not any(self.checks[name].is_valid(value) for value in values):
                raise RefusedError(400, f"parameter {name} is {text!r}")
        if (body is None) != (self.body is None):
            raise RefusedError(400, f"{self.path} got {'no' if body is None else 'a'} body")
        if self.body is not None:
            try:
                self.body.validate(body)
            except jsonschema_rs.ValidationError as error:
                raise RefusedError(400, f"{self.method} {self.path}: {error}"[:2000]) from error


OPERATIONS = [
    Operation(method, path, described)
    for path, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
]


class Collections:
    """What the server holds, by collection name. One call at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.version = "1.19.0"
        self._made: dict[str, tuple[edge.EdgeShard, dict[str, Any], dict[str, Any]]] = {}
        self._count = 0
        self.lock = threading.Lock()

    def __call__(self, operation: Operation, name: str, body: Any) -> Any:
        if name and name not in self._made and operation.method != "PUT":
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        tail = operation.path.removeprefix("/collections").removeprefix("/{collection_name}")
        if operation.path == "/":
            return {"title": "qdrant - vector search engine", "version": self.version}
        if operation.path == "/collections":
            return {"collections": [{"name": known} for known in self._made]}
        return getattr(self, f"{operation.method.lower()}{tail.replace('/', '_')}")(name, body)

    def put(self, name: str, body: Any) -> bool:
        if name in self._made:
            raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
        folder = self._root / str(self._count)
        self._count += 1
        folder.mkdir(parents=True)
        dense = {
            key: edge.EdgeVectorParams(size=v["size"], distance=getattr(edge.Distance, v["distance"]))
            for key, v in body["vectors"].items()
        }
        sparse = {
            key: edge.EdgeSparseVectorParams(modifier={"idf": edge.Modifier.Idf}[v["modifier"]])
            for key, v in (body.get("sparse_vectors") or {}).items()
        }
        config = edge.EdgeConfig(vectors=dense, sparse_vectors=sparse, wal_enabled=False)
        self._made[name] = edge.EdgeShard.create(str(folder), config), body, {}
        return True

    def delete(self, name: str, _: Any) -> bool:
        self._made.pop(name)[0].close()
        return True

    def get(self, name: str, _: Any) -> Any:
        shard, body, fields = self._made[name]
        hnsw = {"m": 16, "ef_construct": 128, "full_scan_threshold": 10_000}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        params = {"vectors": body["vectors"], "sparse_vectors": body.get("sparse_vectors")}
        for key in ("shard_number", "replication_factor", "write_consistency_factor"):
            params[key] = body.get(key) or 1
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "points_count": shard.info().points_count,
            "payload_schema": {f: {"data_type": kind, "points": 0} for f, kind in fields.items()},
            "config": {
                "params": params,
                "hnsw_config": hnsw,
                "optimizer_config": {**optimizer, "flush_interval_sec": 5},
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "metadata": body.get("metadata"),
            },
        }

    def put_index(self, name: str, body: Any) -> Any:
        shard, _, fields = self._of(name)
        schema = body["field_schema"]
        kinds = {"float": edge.PayloadSchemaType.Float}
        if isinstance(schema, dict):
            assert schema["type"] == "integer"
            kind: Any = edge.IntegerIndexParams(lookup=schema["lookup"], range=schema["range"])
        else:
            kind = kinds[schema]
        shard.update(edge.UpdateOperation.create_field_index(body["field_name"], kind))
        fields[body["field_name"]] = schema["type"] if isinstance(schema, dict) else schema
        return self._done()

    def put_points(self, name: str, body: Any) -> Any:
        shard = self._of(name)[0]
        points = [edge.Point(p["id"], _vectors(p["vector"]), p["payload"]) for p in body["points"]]
        shard.update(edge.UpdateOperation.upsert_points(points))
        return self._done()

    def post_points_delete(self, name: str, body: Any) -> Any:
        where = _filter(body["filter"])
        self._of(name)[0].update(edge.UpdateOperation.delete_points_by_filter(where))
        return self._done()

    def post_points_count(self, name: str, body: Any) -> Any:
        request = edge.CountRequest(exact=body["exact"], filter=_filter(body.get("filter")))
        return {"count": self._of(name)[0].count(request)}

    def post_points(self, name: str, body: Any) -> Any:
        found = self._of(name)[0].retrieve(
            body["ids"], with_payload=body["with_payload"], with_vector=body["with_vector"]
        )
        return [{"id": str(r.id), "payload": r.payload, "vector": _plain(r.vector)} for r in found]

    def post_points_scroll(self, name: str, body: Any) -> Any:
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=body["with_payload"],
            with_vector=body["with_vector"],
        )
        records, following = self._of(name)[0].scroll(request)
        points = [
            {
                "id": str(r.id),
                "payload": r.payload,
                "vector": _plain(r.vector) if body["with_vector"] else None,
            }
            for r in records
        ]
        return {"points": points, "next_page_offset": None if following is None else str(following)}

    def post_points_query_batch(self, name: str, body: Any) -> Any:
        requests = [_request(search) for search in body["searches"]]
        found = self._of(name)[0].query_batch(edge.QueryBatchRequest(requests))
        return [
            {
                "points": [
                    {"id": str(h.id), "version": 0, "score": h.score, "payload": h.payload} for h in hits
                ]
            }
            for hits in found
        ]

    def _of(self, name: str) -> tuple[edge.EdgeShard, dict[str, Any], dict[str, Any]]:
        if name not in self._made:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self._made[name]

    def _done(self) -> Any:
        return {"operation_id": 0, "status": "completed"}

    def close(self) -> None:
        for shard, _, _ in self._made.values():
            shard.close()
        shutil.rmtree(self._root, ignore_errors=True)


def _filter(where: Any) -> edge.Filter | None:
    return edge.Filter(must=[condition(_given(part)) for part in where["must"]]) if where else None


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _given(inner) for key, inner in value.items() if inner is not None}
    # A filter without conditions loses its empty list on the way over gRPC.
    if isinstance(value, list):
        return [{"must": []} if inner == {} else _given(inner) for inner in value]
    return value


def _vectors(vectors: dict[str, Any]) -> dict[str, Any]:
    return {
        key: edge.SparseVector(v["indices"], v["values"]) if isinstance(v, dict) else v
        for key, v in vectors.items()
    }


def _plain(vectors: Any) -> dict[str, Any]:
    return {
        key: {"indices": list(v.indices), "values": list(v.values)} if isinstance(v, edge.SparseVector) else v
        for key, v in vectors.items()
    }


def _request(search: Any) -> edge.QueryRequest:
    given, params = search["query"]["nearest"], _given(search["params"])
    query = edge.SparseVector(given["indices"], given["values"]) if isinstance(given, dict) else given
    idf = edge.IdfParams(corpus=edge.Filter(must=[])) if "idf" in params else None
    assert not any(params.get("idf", {}).get("corpus", {}).values()), params
    return edge.QueryRequest(
        limit=search["limit"],
        query=edge.Query.Nearest(query, search["using"]),
        filter=_filter(search.get("filter")),
        with_payload=search["with_payload"],
        params=edge.SearchParams(
            hnsw_ef=params.get("hnsw_ef"), exact=params.get("exact", False), **({"idf": idf} if idf else {})
        ),
    )


class Server(ThreadingHTTPServer):
    """Holds the collections. ``faults`` is a list of what goes wrong with the next requests: a status, or
    "hang up", "page" (of HTML), or "late" (done, but not answered). ``seen`` lists method and path of every
    request."""

    daemon_threads = True

    def __init__(self, root: Path, api_key: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.collections = Collections(root)
        self.api_key = api_key
        self.faults: list[int | str] = []
        self.seen: list[tuple[str, str]] = []
        self.refused: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        self.server.seen.append((self.command, self.path))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang up":
            self.close_connection = True
            return
        status, answer = (
            self._result(text) if not isinstance(fault, int) else (fault, {"status": {"error": "?"}})
        )
        if fault == "late":
            self.close_connection = True
            return
        data = json.dumps(answer).encode() if fault != "page" else b"<html></html>"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def _result(self, text: bytes) -> tuple[int, Any]:
        address = urlsplit(self.path)
        try:
            if self.server.api_key and self.headers.get("api-key") != self.server.api_key:
                raise RefusedError(403, "Forbidden: the api-key is wrong")
            operation, found = next(
                (
                    (o, m)
                    for o in OPERATIONS
                    if o.method == self.command and (m := o.pattern.fullmatch(address.path))
                ),
                (None, None),
            )
            if operation is None or found is None:
                raise RefusedError(404, f"the document has no {self.command} {address.path}")
            body = json.loads(text) if text else None
            operation.check(parse_qs(address.query), body)
            name = found.groupdict().get("collection_name", "")
            with self.server.collections.lock:
                result = self.server.collections(operation, name, body)
            answer = {"result": result, "status": "ok", "time": 0.0} if operation.path != "/" else result
            operation.answer.validate(answer)
        except RefusedError as error:
            if error.status == 400:
                self.server.refused.append(str(error))
            return error.status, {"status": {"error": str(error)}, "time": 0.0}
        except Exception as error:
            self.server.refused.append(repr(error))
            return 500, {"status": {"error": repr(error)}, "time": 0.0}
        return 200, answer

    do_GET = do_PUT = do_POST = do_DELETE = _answer


@contextlib.contextmanager
def qdrant_server(root: Path, api_key: str | None = None) -> Iterator[Server]:
    """A running server. At its end, no request may have broken the contract."""
    server = Server(root, api_key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.collections.close()
    assert server.refused == []
