"""Uploads that are not waited for: 202, and jobs to look at, watch and cancel."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from small_library import DOCUMENTS, LEASE, client_of, small_settings
from starlette.testclient import TestClient

from api.build import open_longleaf
from api.keys import KeyRing
from api.sections import Quota, QuotaSettings
from pipeline.jobs import JobConfig

BOOKS = "/v1/collections/books/documents"


def idle(tmp_path: Any, **changes: Any) -> TestClient:
    """A client of a service that accepts jobs and does not work on them."""
    settings = small_settings(tmp_path).model_copy(update={"jobs": JobConfig(workers=0), **changes})
    return client_of(settings)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return value


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        return now if now["finished"] else None

    found: dict[str, Any] = until(look)
    return found


def test_an_upload_is_accepted_and_done(client: TestClient) -> None:
    response = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS})
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["documents_total"], job["collection"]) == (3, "books")
    done = ended(client, job)
    assert (done["state"], done["documents_done"]) == ("done", 3)
    assert [d["id"] for d in client.get(BOOKS).json()["documents"]] == ["frost", "lease", "whale"]
    page = client.get(f"/v1/jobs/{job['id']}/documents", params={"limit": 2}).json()
    assert [d["document_id"] for d in page["documents"]] == ["lease", "whale"]
    rest = client.get(f"/v1/jobs/{job['id']}/documents", params={"after": page["next"]}).json()
    assert [(d["document_id"], d["status"]) for d in rest["documents"]] == [("frost", "created")]
    assert rest["next"] is None
    assert [j["id"] for j in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    assert client.get("/v1/jobs", params={"state": "failed"}).json()["jobs"] == []


def test_files_are_accepted_as_a_form(client: TestClient) -> None:
    files = [("files", ("mill.txt", LEASE.encode())), ("files", ("empty.txt", b""))]
    job = client.post(BOOKS, params={"wait": False}, files=files, data={"metadata": '{"year": 1869}'}).json()
    done = ended(client, job)
    assert (done["state"], done["documents_failed"]) == ("partial", 1)
    assert client.get(f"{BOOKS}/mill.txt").json()["metadata"] == {"year": 1869}
    _, empty = client.get(f"/v1/jobs/{job['id']}/documents").json()["documents"]
    assert (empty["stage"], empty["code"]) == ("failed", "empty_document")
    assert empty["remedy"]


def test_the_same_key_is_the_same_job(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        send = {"params": {"wait": False}, "headers": {"Idempotency-Key": "one"}}
        first = client.post(BOOKS, json={"documents": DOCUMENTS}, **send)
        again = client.post(BOOKS, json={"documents": DOCUMENTS}, **send)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert (again.headers["idempotency-replayed"], "idempotency-replayed" in first.headers) == (
            "true",
            False,
        )
        other = client.post(BOOKS, json={"documents": DOCUMENTS[:1]}, **send)
        assert (other.status_code, other.json()["code"]) == (422, "invalid_request")
        assert len(client.get("/v1/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_conflicts_are_met_as_asked(client: TestClient, wait: bool) -> None:
    def put(content: str, policy: str) -> str:
        response = client.post(
            BOOKS,
            params={"wait": wait, "on_conflict": policy},
            json={"documents": [{"id": "a", "text": content}]},
        )
        if not wait:
            ended(client, response.json())
            (document,) = client.get(f"/v1/jobs/{response.json()['id']}/documents").json()["documents"]
        elif response.status_code == 409:
            (document,) = response.json()["documents"]
        else:
            (document,) = response.json()["documents"]
        return str(document["status"])

    told = [put("The otter.", "fail"), put("The heron.", "fail"), put("The heron.", "skip")]
    told += [put("The heron.", "new_version"), put("The newt.", "replace"), put("The newt.", "replace")]
    assert told == ["created", "failed", "skipped", "replaced", "replaced", "unchanged"]
    assert client.get(f"{BOOKS}/a").json()["version"] == 3
    assert client.post(BOOKS, params={"on_conflict": "mix"}, json={"documents": DOCUMENTS}).status_code == 422


def test_cancelling(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
        for _ in range(2):
            response = client.post(f"/v1/jobs/{job['id']}/cancel")
            assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert client.get("/v1/collections").json()["collections"] == []


def test_events_tell_all_until_the_end(client: TestClient) -> None:
    job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(response.iter_text()).split("\n\n")
    events = [
        dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        for block in blocks
        if block
    ]
    events = [event for event in events if event]
    states = [json.loads(e["data"])["detail"] for e in events if e["event"] == "job"]
    assert states == ["queued", "running", "done"]
    assert json.loads(events[-1]["data"])["state"] == "done"
    ids = [int(event["id"]) for event in events if "id" in event]
    assert ids == sorted(set(ids))
    with client.stream(
        "GET", f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ids[-2])}
    ) as response:
        rest = "".join(response.iter_text())
    assert rest.count("\nid: ") + rest.startswith("id: ") == 1


def test_unknown_jobs_and_wrong_questions(client: TestClient) -> None:
    for method, path in (("get", ""), ("get", "/documents"), ("get", "/events"), ("post", "/cancel")):
        response = client.request(method, f"/v1/jobs/nope{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    for params in ({"state": "odd"}, {"limit": 0}, {"limit": 1001}):
        assert client.get("/v1/jobs", params=params).status_code == 422
    response = client.post(BOOKS, params={"wait": False}, json={"documents": []})
    assert response.status_code == 422
    form = {"files": [("files", ("a.pdf", b"x"))], "data": {"password": "secret"}}
    assert client.post(BOOKS, params={"wait": False}, **form).json()["code"] == "invalid_request"
    assert client.get("/v1/jobs").json() == {"jobs": [], "next": None}


def test_jobs_belong_to_tenants_and_scopes(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        ring = KeyRing(tmp_path / "data")
        mine = {"Authorization": f"Bearer {ring.create('mine', tenant='one')}"}
        narrow = {"Authorization": f"Bearer {ring.create('narrow', tenant='one', collections=('other',))}"}
        reader = {"Authorization": f"Bearer {ring.create('reader', tenant='one', access='read')}"}
        theirs = {"Authorization": f"Bearer {ring.create('theirs', tenant='two')}"}
        send = {"params": {"wait": False}, "json": {"documents": DOCUMENTS}}
        job = client.post(BOOKS, headers=mine, **send).json()
        path = f"/v1/jobs/{job['id']}"
        assert client.get(path, headers=mine).status_code == 200
        assert client.get(path, headers=theirs).status_code == 404
        assert client.get("/v1/jobs", headers=theirs).json()["jobs"] == []
        assert client.get(path, headers=narrow).status_code == 403
        assert client.get("/v1/jobs", headers=narrow).json()["jobs"] == []
        assert client.get(path, headers=reader).status_code == 200
        assert client.post(f"{path}/cancel", headers=reader).status_code == 403
        assert client.post(BOOKS, headers=reader, **send).status_code == 403
        assert client.post(f"{path}/cancel", headers=theirs).status_code == 404
        assert client.post(f"{path}/cancel", headers=mine).status_code == 200


def test_pages_of_jobs_are_of_what_the_key_opens(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        ring = KeyRing(tmp_path / "data")
        everything = {"Authorization": f"Bearer {ring.create('all')}"}
        some = {"Authorization": f"Bearer {ring.create('some', collections=('books', 'notes-*'))}"}
        made: dict[str, str] = {}
        for name in ("books", "secret", "Notes-1", "notes-1", "secret2", "secret3", "books2", "notes-2"):
            path = f"/v1/collections/{name}/documents"
            send = {"params": {"wait": False}, "json": {"documents": DOCUMENTS[:1]}, "headers": everything}
            made[client.post(path, **send).json()["id"]] = name
        seen, cursors, before = [], [], None
        while True:
            wanted = {"limit": 1, **({} if before is None else {"before": before})}
            page = client.get("/v1/jobs", params=wanted, headers=some).json()
            seen += [job["collection"] for job in page["jobs"]]
            if (before := page["next"]) is None:
                break
            cursors.append(made[before])
        assert seen == ["notes-2", "notes-1", "books"]
        assert cursors == seen[:-1], "no cursor tells of a job that the key may not see"
        nothing = {"Authorization": f"Bearer {ring.create('nothing', collections=('x',))}"}
        assert client.get("/v1/jobs", headers=nothing).json() == {"jobs": [], "next": None}


def test_what_waits_counts_for_the_quota_and_too_much_is_refused(tmp_path: Any) -> None:
    jobs = JobConfig(workers=0, max_queued_documents=4)
    with idle(tmp_path, quotas=QuotaSettings(tenants={"default": Quota(documents=5)}), jobs=jobs) as client:
        send: dict[str, Any] = {"params": {"wait": False}}
        assert client.post(BOOKS, json={"documents": DOCUMENTS}, **send).status_code == 202
        over = client.post(BOOKS, json={"documents": DOCUMENTS}, **send)
        assert (over.status_code, over.json()["code"]) == (403, "quota_exceeded")
        assert client.post(BOOKS, json={"documents": DOCUMENTS[:1]}, **send).status_code == 202
        full = client.post(BOOKS, json={"documents": DOCUMENTS[:1]}, **send)
        assert (full.status_code, full.json()["code"]) == (503, "unavailable")
        assert full.headers["retry-after"]


def test_a_restart_goes_on_where_it_was(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
    with client_of(small_settings(tmp_path)) as client:
        assert ended(client, job)["state"] == "done"
        assert len(client.get(BOOKS).json()["documents"]) == 3
        assert not [t for t in threading.enumerate() if t.name == "lease"], "SQLite needs no renewals"


def test_metrics_tell_what_waits_and_what_was_done(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
        told = client.get("/metrics").text
        assert 'longleaf_job_documents{stage="queued"} 3.0' in told
        assert 'longleaf_job_oldest_seconds{stage="queued"}' in told
    with client_of(small_settings(tmp_path)) as client:
        ended(client, job)
        told = client.get("/metrics").text
        assert "longleaf_job_documents{" not in told
        assert 'longleaf_documents_total{status="created"} 3.0' in told


def test_a_server_tells_of_what_workers_elsewhere_did(tmp_path: Any) -> None:
    ended_now = 'longleaf_job_documents_ended_total{{stage="{}"}} {}'.format
    documents = [DOCUMENTS[0], {"id": "bad", "title": "Bad", "text": " "}]
    with idle(tmp_path) as client:
        told = client.get("/metrics").text
        assert all(ended_now(s, "0.0") in told for s in ("done", "failed", "quarantined", "cancelled"))
        job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
        client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        client.post(BOOKS, params={"wait": False}, json={"documents": documents}).raise_for_status()
        with open_longleaf(small_settings(tmp_path)) as worker:
            worker.worker.drain()
        for _ in range(2):
            told = client.get("/metrics").text
            assert ended_now("cancelled", "3.0") in told
            assert ended_now("done", "1.0") in told
            assert ended_now("failed", "1.0") in told
        assert "longleaf_documents_total{" not in told, "it did not do it itself"
    with idle(tmp_path) as client:
        assert ended_now("done", "0.0") in client.get("/metrics").text, "since this server's start"


def test_what_ended_before_the_first_scrape_counts_too(tmp_path: Any) -> None:
    with idle(tmp_path) as client:
        job = client.post(BOOKS, params={"wait": False}, json={"documents": DOCUMENTS}).json()
        client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        assert 'longleaf_job_documents_ended_total{stage="cancelled"} 3.0' in client.get("/metrics").text
