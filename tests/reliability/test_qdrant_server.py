"""A Qdrant server that is down, slow, overloaded, strict or elsewhere; and the same over gRPC and TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_grpc import grpc_interface
from qdrant_server import Server, qdrant_server

from indexers import _qdrant_calls, qdrant
from indexers._qdrant_indexer import QdrantIndexer
from indexers.exact import ExactIndexer
from pipeline.errors import ConfigurationError, FingerprintMismatchError, IndexingError, UnavailableError
from pipeline.filters import And, Equals, Exists, Filter, Not, Or, Range
from pipeline.plugins import configure
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point, SparseVector

NAME = "tenant/collection/passages"
SCHEMA = IndexSchema("f", 16, True, {})


def point(i: int) -> Point:
    vector = np.random.default_rng(i).standard_normal(16)
    words = SparseVector(np.array([i % 5, 10 + i % 7], np.uint32), np.array([1.5, 0.5], np.float32))
    payload = {"i": i, "tags": [f"t{i % 3}", "日本"], "day": f"2024-01-{1 + i % 28:02}", "deep": {"x": i % 2}}
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
    return Point(key, payload, (vector / np.linalg.norm(vector)).astype(np.float32), words)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_qdrant_calls, "_FIRST_PAUSE_SECONDS", 0.001)
    with qdrant_server(tmp_path / "server", api_key="right") as running:
        yield running


def connect(server: Server, **options: object) -> QdrantIndexer:
    return qdrant.build(configure("indexers", "qdrant", url=server.url, api_key="right", **options))


@pytest.fixture
def indexer(server: Server) -> Iterator[QdrantIndexer]:
    made = connect(server)
    made.create(NAME, SCHEMA)
    made.upsert(NAME, [point(i) for i in range(60)])
    server.seen.clear()
    yield made
    made.close()


FILTERS: list[Filter] = [
    And(()),
    Or(()),
    Not(And(())),
    Equals("tags", "日本"),
    And((Equals("tags", "t1"), Range("i", gte=10, lt=40))),
    Or((Range("day", gte=1704067200.0, lt=1704672000.0), Not(Exists("deep")))),
    Equals("deep.x", 1),
]


def test_over_grpc_it_is_the_same(server: Server) -> None:
    oracle = ExactIndexer(None)
    with grpc_interface(server) as port:
        served = connect(server, prefer_grpc=True, grpc_port=port)
        for each in (oracle, served):
            each.create(NAME, SCHEMA)
            each.upsert(NAME, [point(i) for i in range(60)])
            each.delete(NAME, Range("i", gte=50))
        assert served.schema(NAME) == SCHEMA
        assert served.names() == [NAME]
        for where in FILTERS:
            assert list(served.points(NAME, where)) == list(oracle.points(NAME, where))
            assert served.count(NAME, where) == oracle.count(NAME, where)
            searches = [
                IndexSearch(60, dense=point(3).dense, filter=where),
                IndexSearch(60, sparse=point(3).sparse, filter=where),
            ]
            for mine, theirs in zip(
                served.search(NAME, searches), oracle.search(NAME, searches), strict=True
            ):
                assert [m.payload for m in mine] == [m.payload for m in theirs]
                assert [m.score for m in mine] == pytest.approx([m.score for m in theirs], rel=1e-4)
        (whole,) = served.read(NAME, Equals("i", 7))
        np.testing.assert_array_equal(whole.dense, point(7).dense)
        ids = [point(i).id for i in (7, 55, 3)]
        vectors = served.vectors(NAME, ids)
        assert vectors.keys() == {ids[0], ids[2]}
        np.testing.assert_array_equal(vectors[ids[2]].dense, point(3).dense)
        np.testing.assert_array_equal(vectors[ids[2]].sparse.values, point(3).sparse.values)
        assert all(kind.startswith("gRPC") for kind, _ in server.seen)
        server.faults[:] = [503, 503]
        assert served.count(NAME) == 50
        served.drop(NAME)
        with pytest.raises(IndexingError, match="no index"):
            served.count(NAME)
        wrong = qdrant.build(
            configure("indexers", "qdrant", url=server.url, api_key="x", prefer_grpc=True, grpc_port=port)
        )
        with pytest.raises(IndexingError, match=r"indexer\.api_key"):
            wrong.names()
        wrong.close()
        served.close()


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "hang up"])
def test_what_repeats_without_harm_is_tried_again(indexer, server, fault) -> None:
    server.faults[:] = [fault, fault, fault]
    assert indexer.count(NAME) == 60
    assert len(server.seen) == 4
    server.faults[:] = [fault] * 4
    with pytest.raises(UnavailableError, match=server.url) as caught:
        indexer.count(NAME)
    assert "try again" in caught.value.remedy
    assert indexer.count(NAME) == 60


def test_a_write_whose_answer_is_lost_has_one_effect(indexer, server) -> None:
    server.faults[:] = ["late"]
    indexer.upsert(NAME, [point(70)])
    server.faults[:] = ["late"]
    indexer.delete(NAME, Range("i", lt=10))
    assert indexer.count(NAME) == 51
    assert [method for method, _ in server.seen].count("PUT") == 2


def test_making_a_collection_is_not_repeated(indexer, server) -> None:
    server.faults[:] = [404, "hang up"]  # not there, and no answer to the making
    with pytest.raises(UnavailableError):
        indexer.create("tenant/other/passages", SCHEMA)
    assert [method for method, _ in server.seen] == ["GET", "PUT"]
    server.faults[:] = [404, "late"]  # made, but nobody was told
    with pytest.raises(UnavailableError):
        indexer.create("tenant/other/passages", SCHEMA)
    indexer.create("tenant/other/passages", SCHEMA)
    fields = server.collections._made[indexer._place("tenant/other/passages")][2]
    assert fields == {"facts": "integer"}, "what an interrupted making left out is made up for"
    with pytest.raises(FingerprintMismatchError):
        indexer.create("tenant/other/passages", IndexSchema("g", 16, True, {}))


def test_errors_are_told_with_what_to_do(indexer, server) -> None:
    server.faults[:] = [400]
    with pytest.raises(IndexingError, match=r"refused for a count \(400\)"):
        indexer.count(NAME)
    stranger = qdrant.build(configure("indexers", "qdrant", url=server.url, api_key="wrong"))
    with pytest.raises(IndexingError, match="403") as caught:
        stranger.names()
    assert "indexer.api_key" in caught.value.remedy
    assert "wrong" not in str(caught.value).replace("the api-key is wrong", "")
    stranger.close()


def test_no_server_and_a_silent_one() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        down = qdrant.build(configure("indexers", "qdrant", url=url, attempts=1))
        with pytest.raises(UnavailableError, match="ConnectError"):
            down.names()
        silent.listen(1)
        slow = qdrant.build(configure("indexers", "qdrant", url=url, attempts=1, timeout_seconds=1))
        with pytest.raises(UnavailableError, match="timed out"):
            slow.names()
    down.close()
    slow.close()


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_a_server_that_ignores_what_is_sent_is_refused(server, prefer_grpc) -> None:
    server.collections.version = "1.15.5"
    with grpc_interface(server) as port:
        old = connect(server, prefer_grpc=prefer_grpc, grpc_port=port)
        for _ in range(2):
            with pytest.raises(IndexingError, match=r"is version 1\.15\.5") as caught:
                old.create(NAME, SCHEMA)
        assert "1.19 or later" in caught.value.remedy
        server.collections.version = "1.19.1-dev"
        old.create(NAME, SCHEMA)
        old.close()


@pytest.mark.parametrize(("told", "faults"), [("built here", []), ("1.19.0", [404]), ("1.19.0", ["page"])])
def test_an_unknown_version_is_told_once_and_taken(server, caplog, told, faults) -> None:
    server.collections.version = told
    made = connect(server, attempts=1)
    server.faults[:] = faults  # a proxy that passes only what it knows, or shows a page of its own
    assert made.names() == []
    assert made.names() == []
    assert [record.message for record in caplog.records if record.name == "longleaf.qdrant"] == [
        f"the Qdrant server at {server.url} does not tell its version; 1.19 is needed"
    ]
    assert [path for _, path in server.seen] == ["/", "/collections", "/collections"]
    made.close()


def test_a_collection_dropped_by_others_and_one_that_is_not_ours(indexer, server) -> None:
    other = connect(server)
    other.drop(NAME)
    with pytest.raises(IndexingError, match="no index"):
        indexer.search(NAME, [IndexSearch(1, dense=point(1).dense)])
    assert indexer.schema(NAME) is None
    body = {"vectors": {"dense": {"size": 16, "distance": "Dot"}}}
    server.collections.put(indexer._place(NAME), body)
    with pytest.raises(IndexingError, match=r"not made by Longleaf"):
        indexer.create(NAME, SCHEMA)
    assert indexer.names() == []
    other.close()


def test_a_cluster_is_made_as_configured(server) -> None:
    made = connect(
        server,
        prefix="site-2",
        shard_number=3,
        replication_factor=2,
        write_consistency_factor=2,
        read_consistency="majority",
        quantization="int8",
    )
    made.create(NAME, SCHEMA)
    ((place, (_, body, fields)),) = server.collections._made.items()
    assert place.startswith("site-2-")
    assert (body["shard_number"], body["replication_factor"], body["write_consistency_factor"]) == (3, 2, 2)
    assert body["quantization_config"]["scalar"]["type"] == "int8"
    assert list(fields) == ["facts"]
    made.upsert(NAME, [point(1)])
    assert set(fields) >= {"facts", "n_i", "n_day"}
    made.search(NAME, [IndexSearch(1, dense=point(1).dense)])
    assert "consistency=majority" in server.seen[-1][1]
    made.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="making a certificate needs openssl")
def test_tls_with_an_authority_of_ones_own(tmp_path: Path, server: Server) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=qdrant",
    ]
    names = [
        "-subj",
        "/CN=qdrant",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    trusting = qdrant.build(
        configure("indexers", "qdrant", url=url, api_key="right", ca_certificate=certificate, attempts=1)
    )
    trusting.create(NAME, SCHEMA)
    assert trusting.names() == [NAME]
    wary = qdrant.build(configure("indexers", "qdrant", url=url, api_key="right", attempts=1))
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        wary.names()
    with pytest.raises(ConfigurationError, match="ca_certificate"):
        qdrant.build(configure("indexers", "qdrant", url=url, ca_certificate=tmp_path / "nothing.pem"))
    for each in (trusting, wary):
        each.close()


def test_the_key_is_not_shown() -> None:
    config = configure("indexers", "qdrant", api_key="secret-key")
    assert "secret-key" not in f"{config!r} {config} {config.model_dump()}"
