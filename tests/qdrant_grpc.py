"""The gRPC interface of the test server: each call becomes the HTTP call that says the same.

So what ``qdrant-client`` sends over gRPC is validated against the same published document, through the
client's own conversions, and answered by the same engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from qdrant_client import grpc as q
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc, qdrant_pb2_grpc
from qdrant_client.http import models
from qdrant_server import OPERATIONS, RefusedError, Server

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    503: grpc.StatusCode.UNAVAILABLE,
}


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value


def tidy(value: Any) -> Any:
    """Without the empty clauses that the client's conversion adds to every filter."""
    if isinstance(value, list):
        return [tidy(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value and set(value) <= {"must", "should", "must_not"}:
        return {key: tidy(inner) for key, inner in value.items() if inner} or {"must": []}
    return {key: tidy(inner) for key, inner in value.items()}


def where(given: Any) -> Any:
    return tidy(plain(GrpcToRest.convert_filter(given)))


class Calls:
    """Asks the collections of an HTTP server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def ask(self, context: Any, method: str, path: str, name: str, body: Any = None) -> Any:
        metadata = dict(context.invocation_metadata())
        self._server.seen.append((f"gRPC {method}", path))
        fault = self._server.faults.pop(0) if self._server.faults else None
        if isinstance(fault, int):
            context.abort(CODES[fault], "as the test wants it")
        operation = next(o for o in OPERATIONS if (o.method, o.path) == (method, path))
        try:
            if self._server.api_key and metadata.get("api-key") != self._server.api_key:
                raise RefusedError(403, "Forbidden: the api-key is wrong")
            operation.check({}, body)
            with self._server.collections.lock:
                return self._server.collections(operation, name, body)
        except RefusedError as error:
            if error.status == 400:
                self._server.refused.append(str(error))
            return context.abort(CODES[error.status], str(error))
        except Exception as error:
            self._server.refused.append(repr(error))
            raise


COLLECTION = "/collections/{collection_name}"


class CollectionsServicer(collections_service_pb2_grpc.CollectionsServicer, Calls):
    def List(self, request: Any, context: Any) -> Any:
        found = self.ask(context, "GET", "/collections", "")["collections"]
        return q.ListCollectionsResponse(collections=[q.CollectionDescription(name=c["name"]) for c in found])

    def Get(self, request: Any, context: Any) -> Any:
        found = self.ask(context, "GET", COLLECTION, request.collection_name)
        info = models.CollectionInfo.model_validate({"indexed_vectors_count": 0, **found})
        return q.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def Create(self, request: Any, context: Any) -> Any:
        sparse = {
            key: plain(GrpcToRest.convert_sparse_vector_params(value))
            for key, value in request.sparse_vectors_config.map.items()
        }
        vectors = {
            key: plain(GrpcToRest.convert_vector_params(value))
            for key, value in request.vectors_config.params_map.map.items()
        }
        body = {
            "vectors": vectors,
            "sparse_vectors": sparse,
            "hnsw_config": plain(GrpcToRest.convert_hnsw_config_diff(request.hnsw_config)),
            "metadata": GrpcToRest.convert_payload(request.metadata),
        }
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            if request.HasField(name):
                body[name] = getattr(request, name)
        done = self.ask(context, "PUT", COLLECTION, request.collection_name, body)
        return q.CollectionOperationResponse(result=done)

    def Delete(self, request: Any, context: Any) -> Any:
        done = self.ask(context, "DELETE", COLLECTION, request.collection_name)
        return q.CollectionOperationResponse(result=done)


class QdrantServicer(qdrant_pb2_grpc.QdrantServicer, Calls):
    def HealthCheck(self, request: Any, context: Any) -> Any:
        return q.HealthCheckReply(**self.ask(context, "GET", "/", ""))


class PointsServicer(points_service_pb2_grpc.PointsServicer, Calls):
    def Upsert(self, request: Any, context: Any) -> Any:
        points = [plain(GrpcToRest.convert_point_struct(point)) for point in request.points]
        self.ask(context, "PUT", f"{COLLECTION}/points", request.collection_name, {"points": points})
        return _done()

    def Delete(self, request: Any, context: Any) -> Any:
        body = {"filter": where(request.points.filter)}
        self.ask(context, "POST", f"{COLLECTION}/points/delete", request.collection_name, body)
        return _done()

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        schema: Any = "float"
        if request.field_type == q.FieldType.FieldTypeInteger:
            wanted = request.field_index_params.integer_index_params
            schema = {"type": "integer", "lookup": wanted.lookup, "range": wanted.range}
        body = {"field_name": request.field_name, "field_schema": schema}
        self.ask(context, "PUT", f"{COLLECTION}/index", request.collection_name, body)
        return _done()

    def Count(self, request: Any, context: Any) -> Any:
        body = {"exact": request.exact, "filter": where(request.filter)}
        found = self.ask(context, "POST", f"{COLLECTION}/points/count", request.collection_name, body)
        return q.CountResponse(result=q.CountResult(count=found["count"]))

    def Get(self, request: Any, context: Any) -> Any:
        body = {
            "ids": [GrpcToRest.convert_point_id(point) for point in request.ids],
            "with_payload": request.with_payload.enable,
            "with_vector": list(request.with_vectors.include.names),
        }
        found = self.ask(context, "POST", f"{COLLECTION}/points", request.collection_name, body)
        records = [models.Record.model_validate({**point, "payload": {}}) for point in found]
        return q.GetResponse(result=[RestToGrpc.convert_record(record) for record in records])

    def Scroll(self, request: Any, context: Any) -> Any:
        body = {
            "limit": request.limit,
            "filter": where(request.filter),
            "with_payload": list(request.with_payload.include.fields),
            "with_vector": request.with_vectors.enable,
        }
        if request.HasField("offset"):
            body["offset"] = GrpcToRest.convert_point_id(request.offset)
        found = self.ask(context, "POST", f"{COLLECTION}/points/scroll", request.collection_name, body)
        records = [models.Record.model_validate(point) for point in found["points"]]
        following = found["next_page_offset"]
        return q.ScrollResponse(
            result=[RestToGrpc.convert_record(record) for record in records],
            next_page_offset=None if following is None else RestToGrpc.convert_extended_point_id(following),
        )

    def QueryBatch(self, request: Any, context: Any) -> Any:
        searches = [_search(each) for each in request.query_points]
        body = {"searches": searches}
        found = self.ask(context, "POST", f"{COLLECTION}/points/query/batch", request.collection_name, body)
        return q.QueryBatchResponse(
            result=[
                q.BatchResult(
                    result=[
                        RestToGrpc.convert_scored_point(models.ScoredPoint.model_validate(point))
                        for point in each["points"]
                    ]
                )
                for each in found
            ]
        )


def _search(request: Any) -> dict[str, Any]:
    made = plain(GrpcToRest.convert_query_points(request))
    return {key: tidy(value) for key, value in made.items() if value is not None}


def _done() -> Any:
    return q.PointsOperationResponse(result=q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed))


@contextlib.contextmanager
def grpc_interface(server: Server) -> Iterator[int]:
    """The port at which the server's collections are reached over gRPC."""
    interface = grpc.server(futures.ThreadPoolExecutor(4))
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(CollectionsServicer(server), interface)
    qdrant_pb2_grpc.add_QdrantServicer_to_server(QdrantServicer(server), interface)
    points_service_pb2_grpc.add_PointsServicer_to_server(PointsServicer(server), interface)
    port = interface.add_insecure_port("127.0.0.1:0")
    interface.start()
    try:
        yield port
    finally:
        interface.stop(None).wait()
