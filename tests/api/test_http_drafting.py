"""Options of drafting over HTTP and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from test_http_answer import ANSWER, QUESTION, events, put_in, with_model  # noqa: F401 - a fixture

from pipeline.lm.request import Generation
from pipeline.seams import TextDelta

SAYS = "Either party may end it with three months' notice."
USED = {"decoding": "speculative", "draft_rounds": 1, "drafted_tokens": 4, "accepted_tokens": 4}


class Drafter:
    """A model that takes whole requests."""

    name = "drafter"
    window_tokens = 4096

    def __init__(self) -> None:
        self.asked: list[Generation] = []

    def count_tokens(self, text):
        return len(text.split())

    def prompt_tokens(self, messages):
        return sum(self.count_tokens(message.content) for message in messages)

    def stream(self, messages, sampling, cancelled=lambda: False) -> Iterator[TextDelta]:
        raise AssertionError("asked without its request")

    def generate(self, request: Generation) -> Iterator[TextDelta]:
        self.asked.append(request)
        yield TextDelta(SAYS, 9, marks="ddddccccc")
        yield TextDelta("", 0, "stop", usage=USED)


@pytest.fixture
def drafter(with_model: TestClient) -> Drafter:  # noqa: F811
    made = Drafter()
    put_in(with_model, made)
    return made


def test_a_request_says_how_to_draft_and_is_told_what_came_of_it(with_model, drafter) -> None:  # noqa: F811
    asked = {"decoding": "speculative", "drafter": "model", "draft_tokens": 3, "eta": 2.5, "long_tokens": 500}
    answer = with_model.post(ANSWER, json={**QUESTION, "mode": "composed", **asked}).json()
    assert answer["decoding"] == USED
    assert answer["trace"]["written"] == [[SAYS, "ddddccccc"], ["", ""]]
    assert answer["trace"]["long_context"][0]["document_id"] == "lease"
    [request] = drafter.asked
    assert (request.speculation.decoding, request.speculation.drafter) == ("speculative", "model")
    assert (request.speculation.draft_tokens, request.speculation.eta) == (3, 2.5)
    assert request.draft_messages
    assert request.tenant == "default"


def test_a_request_may_interpolate_instead(with_model, drafter) -> None:  # noqa: F811
    asked = {"mode": "composed", "decoding": "auto", "interpolation": 0.75}
    assert with_model.post(ANSWER, json={**QUESTION, **asked}).status_code == 200
    [request] = drafter.asked
    assert (request.speculation.eta, request.speculation.interpolation) == (0, 0.75)


def test_events_tell_it_too(with_model, drafter) -> None:  # noqa: F811
    asked = {**QUESTION, "mode": "composed", "stream": True, "decoding": "auto"}
    told = dict(events(with_model.post(ANSWER, json=asked).text))
    assert told["usage"]["decoding"] == USED
    assert told["done"]["decoding"] == USED


@pytest.mark.parametrize(
    "wrong",
    [
        {"eta": -1},
        {"eta": "much"},
        {"draft_tokens": 0},
        {"draft_tokens": 17},
        {"decoding": "sometimes"},
        {"drafter": "oracle"},
        {"long_tokens": -5},
        {"drafter": "lookup", "eta": 1, "decoding": "auto"},
        {"interpolation": 1.5},
        {"drafter": "lookup", "interpolation": 0.5, "decoding": "auto"},
        {"eta": 1, "interpolation": 0.5, "decoding": "auto"},
    ],
)
def test_senseless_options_are_refused(with_model, drafter, wrong) -> None:  # noqa: F811
    refused = with_model.post(ANSWER, json={**QUESTION, **wrong})
    assert refused.status_code == 422
    assert json.loads(refused.text)["code"]
    assert drafter.asked == []
