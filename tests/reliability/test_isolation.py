"""Promise 14: tenants are isolated. Every chunk of one tenant has a canary; another asks every route."""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

from promises import cases, report
from small_library import client_of, small_settings
from starlette.testclient import TestClient

from api.keys import KeyRing
from pipeline.chunk import ChunkConfig

CHUNKS = 40
KINDS = ("units", "passages")
TELLTALE = ("canarytitle", "canarykind", "of the mill of place")
QUESTIONS = (
    "What does the {mark} say?", "{mark}", "Where is the mill of place 7?", "Who pays forty pounds?",
    "sluice", "canary", "the", "\u4f60\u597d mill",
)  # fmt: skip


def canaries(client: TestClient, collection: str) -> None:
    """Documents of which every unit says a word that is nowhere else."""
    for document in range(3):
        text = " ".join(
            f"The canary{document:02}{i:03} of the mill of place {i} pays forty pounds a year to the owner."
            for i in range(CHUNKS)
        )
        made = {
            "id": f"canary-doc-{document}",
            "title": f"canarytitle{document}",
            "text": text,
            "metadata": {"kind": "canarykind", "number": document},
        }
        upload = client.post(f"/v1/collections/{collection}/documents", json={"documents": [made]})
        assert upload.status_code == 200, upload.text


def probes(chunk_ids: list[str], job: str) -> Any:
    """Requests over every route, for names that are the other tenant's, the own ones, and strange ones."""
    collections = ["books", "shared", "../victim/books", "victim/books", "victim%2Fbooks", "default", "*"]
    documents = ["canary-doc-0", "own", *chunk_ids[:5], "../canary-doc-0", "victim/books/canary-doc-0"]
    filters: list[Any] = [
        None,
        {"kind": "canarykind"},
        {"_document_id": "canary-doc-0"},
        {"_title": "canarytitle0"},
        {"not": {"_document_id": "own"}},
        {"number": {"gte": 0}},
        {"or": [{"kind": "canarykind"}, {"_document_id": "x"}]},
    ]
    random_ = random.Random(14)
    while True:
        collection, document = random_.choice(collections), random_.choice(documents)
        question = random_.choice(QUESTIONS).format(mark=f"canary00{random_.randrange(CHUNKS):03}")
        base = f"/v1/collections/{collection}"
        search = {
            "query": question,
            "top_k": random_.choice([1, 10, 1000]),
            "filter": random_.choice(filters),
            "document_id": random_.choice([None, document]),
        }
        chat = {"model": collection, "messages": [{"role": "user", "content": question}]}
        yield from random_.sample(
            [
                ("POST", f"{base}/search", search),
                ("POST", f"{base}/answer", search),
                ("POST", f"{base}/answer", search | {"stream": True}),
                ("GET", base, None),
                ("GET", f"{base}/documents?limit=1000&after={random_.choice(['', 'canary', 'a'])}", None),
                ("GET", f"{base}/documents/{document}", None),
                ("GET", f"{base}/documents/{document}/text", None),
                (
                    "GET",
                    f"{base}/documents/{document}/chunks?kind={random_.choice(['units', 'passages'])}",
                    None,
                ),
                ("GET", f"{base}/documents/{document}/original", None),
                ("DELETE", f"{base}/documents/canary-doc-{random_.randrange(3)}", None),
                ("DELETE", f"/v1/collections/{random_.choice(['victim', 'shared'])}", None),
                ("GET", "/v1/collections", None),
                ("GET", "/v1/models", None),
                ("GET", f"/v1/models/{collection}", None),
                ("POST", "/v1/chat/completions", chat),
                (
                    "POST",
                    "/v1/chat/completions",
                    chat | {"stream": True, "longleaf": {"document_id": document}},
                ),
                ("POST", "/v1/embeddings", {"model": collection, "input": question}),
                ("POST", "/v1/rerank", {"query": question, "documents": ["a mill"], "model": collection}),
                ("GET", "/v1/jobs", None),
                ("GET", f"/v1/jobs/{job}", None),
                ("GET", f"/v1/jobs/{job}/documents", None),
                ("GET", f"/v1/jobs/{job}/events", None),
                ("POST", f"/v1/jobs/{job}/cancel", None),
                ("GET", "/v1/calibrations", None),
                ("GET", "/metrics", None),
                ("GET", "/readyz", None),
                ("GET", "/openapi.json", None),
            ],
            4,
        )


def test_another_tenant_sees_nothing(tmp_path: Path) -> None:
    settings = small_settings(tmp_path).model_copy(
        update={"chunking": ChunkConfig(passage_tokens=40, unit_tokens=20, unit_min_tokens=4)}
    )
    ring = KeyRing(settings.data)
    victim, thief = ring.create("victim", tenant="victim"), ring.create("thief", tenant="thief")
    tried = cases(300, 5_000)
    leaked = []
    with client_of(settings) as client:
        client.headers["authorization"] = f"Bearer {victim}"
        for collection in ("books", "shared"):
            canaries(client, collection)
        listed = client.get(
            "/v1/collections/books/documents/canary-doc-0/chunks?kind=units&limit=1000"
        ).json()
        assert all("canary" in chunk["text"] for chunk in listed["chunks"])
        chunk_ids = [chunk["id"] for chunk in listed["chunks"]]
        found = client.post("/v1/collections/books/search", json={"query": "canary00003"}).text
        assert "canary00003" in found, "control: the owner finds it"
        last = {"documents": [{"id": "canary-late", "text": "The canary00999 pays forty pounds."}]}
        job = client.post("/v1/collections/books/documents?wait=false", json=last).json()["id"]
        until = time.monotonic() + 30
        while client.get(f"/v1/jobs/{job}").json()["state"] != "done" and time.monotonic() < until:
            time.sleep(0.05)
        before = client.get("/v1/collections").json(), client.get(f"/v1/jobs/{job}").json()

        client.headers["authorization"] = f"Bearer {thief}"
        own = [{"id": "own", "text": "The mill of place 7 is mine, and the sluice too."}]
        for collection in ("books", "shared"):
            client.post(f"/v1/collections/{collection}/documents", json={"documents": own}).raise_for_status()
        for method, path, body in itertools.islice(probes(chunk_ids, job), tried):
            response = client.request(method, path, json=body)
            if job in path:
                assert response.status_code == 404, path
            assert response.status_code < 500, (method, path, response.text)
            said = response.text
            if response.is_success:
                asked = json.dumps(body or {}) + path
                told = [
                    word for word in ("canarytitle", "canarykind", "of the mill of place") if word in said
                ]
                if told or ("canary00" in said and "canary00" not in asked):
                    leaked.append((method, path, body))
            else:
                assert "pays forty pounds" not in said
        client.headers["authorization"] = f"Bearer {victim}"
        after = client.get("/v1/collections").json(), client.get(f"/v1/jobs/{job}").json()
        assert after == before, "nothing of the victim's was changed"
    report(14, "probes of another tenant over every route", tried, len(leaked))
    assert not leaked
