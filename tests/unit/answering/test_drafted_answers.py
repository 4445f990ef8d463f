"""How a question's options reach a model that can draft, and what its answer then tells."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from constitution import EMBEDDER, HOUSE, Found, Library, Scripted

from pipeline.answer import AnswerConfig, Answerer, AnswerOptions
from pipeline.errors import ConfigurationError, InvalidRequestError, UnavailableError
from pipeline.events import Done
from pipeline.lm.request import Generation, Speculation
from pipeline.seams import TextDelta
from pipeline.types import Query

QUESTION = Query("How old must a Representative be?", tenant="acme")
TRUE = "No Person shall be a Representative who shall not have attained to the Age of twenty five Years."
USED = {"decoding": "speculative", "draft_rounds": 2, "acceptance": 0.5}


@dataclass
class Drafting(Scripted):
    """Takes whole requests, remembers them, and says that it drafted every other word."""

    requests: list[Generation] = field(default_factory=list)

    def generate(self, request: Generation):
        self.requests.append(request)
        words = self.says.split(" ")
        for at, word in enumerate(words):
            yield TextDelta(word + " ", 1, marks="dc"[at % 2])
        yield TextDelta("", 0, "stop", usage=USED, degraded=("no memory for the drafter",))


class Lengthy(Drafting):
    """Writes on until it is cancelled, three words a round, and only then tells how it drafted."""

    def generate(self, request: Generation):
        for _ in range(50):
            if request.cancelled():
                yield TextDelta("", 0, "cancelled", usage=USED)
                return
            yield TextDelta(self.says + " ", 1, marks="d")
            yield TextDelta("And ", 1, marks="c")
        raise AssertionError("went on writing")


COMPOSED = AnswerConfig(mode="composed")
ASKED = AnswerOptions()


def answer(model, options=ASKED, config=COMPOSED, **parts):
    made = Answerer(Found(), EMBEDDER, model, config, **parts)
    return made.answer(QUESTION, options)


def test_the_answer_tells_how_it_was_decoded():
    model = Drafting(TRUE)
    made = answer(model, documents=None)
    assert made.decoding == USED
    assert "no memory for the drafter" in made.degraded
    assert made.usage["completion_tokens"] == len(TRUE.split())
    assert "".join(text for text, _ in made.trace["written"]).strip() == TRUE
    assert "".join(marks for _, marks in made.trace["written"])[:4] == "dcdc"
    assert model.requests[0].tenant == "acme"


def test_an_answer_that_is_long_enough_tells_it_too():
    config = AnswerConfig(mode="composed", max_sentences=2)
    made = answer(Lengthy(TRUE), AnswerOptions(decoding="speculative"), config)
    assert made.decoding == USED
    assert made.found


def test_what_a_request_says_replaces_the_configuration():
    model = Drafting(TRUE)
    configured = Speculation("speculative", "model", alpha=0.2)
    answer(model, speculation=configured)
    answer(
        model,
        AnswerOptions(decoding="auto", drafter="mixture", draft_tokens=3, eta=2.0),
        speculation=configured,
    )
    assert [r.speculation for r in model.requests] == [
        configured,
        Speculation("auto", "mixture", 3, 2.0, 0.2),
    ]


def test_the_model_reads_widely_and_the_drafter_the_passages():
    model = Drafting(TRUE, window_tokens=4000)
    config = AnswerConfig(mode="composed", prompt_passages=1)
    made = answer(model, AnswerOptions(long_tokens=2000), config, documents=Library())
    [request] = model.requests
    long, short = request.messages[1].content, request.draft_messages[1].content
    assert "Impeachments" not in short
    assert HOUSE in long
    assert "sole Power to try all Impeachments" in long
    assert long.split("Question:")[1] == short.split("Question:")[1]
    [whole] = made.trace["long_context"]
    [passage] = made.trace["passages"]
    assert (whole["start"], whole["document_id"]) == (0, "constitution")
    assert whole["tokens"] > passage["tokens"]
    assert made.usage["prompt_tokens"] > made.usage["passage_prompt_tokens"]
    # Citations are of the passages as ever.
    assert made.statements[0].citations[0].quote in HOUSE


def test_a_window_too_small_for_anything_around_is_said():
    model = Drafting(TRUE, window_tokens=260)
    config = AnswerConfig(mode="composed", prompt_passages=1, max_tokens=40)
    made = answer(model, AnswerOptions(long_tokens=10), config, documents=Library())
    assert model.requests[0].messages[1].content
    assert (
        any("nothing around the passages fits" in what for what in made.degraded)
        or made.trace["long_context"]
    )


def test_without_documents_only_the_passages_are_read():
    made = answer(Drafting(TRUE), AnswerOptions(long_tokens=500))
    assert "there are no documents to read beyond the passages" in made.degraded
    assert "long_context" not in made.trace


def test_a_model_that_cannot_draft_decodes_plainly_and_says_so_if_it_had_to():
    wanted = answer(Scripted(TRUE), AnswerOptions(decoding="speculative"))
    assert "scripted cannot verify drafts: decoded plainly, without guidance" in wanted.degraded
    guided = answer(Scripted(TRUE), AnswerOptions(decoding="auto", eta=1.0))
    assert any("cannot verify drafts" in what for what in guided.degraded)
    assert answer(Scripted(TRUE), AnswerOptions(decoding="auto")).degraded == ()
    assert wanted.decoding == {}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (AnswerOptions(eta=-2.0), "eta is -2.0"),
        (AnswerOptions(draft_tokens=99), "draft_tokens is 99"),
        (AnswerOptions(decoding="auto", drafter="lookup", eta=1.0), "no distribution of its own"),
        (AnswerOptions(eta=2.0), "eta is 2.0 where decoding is 'plain'"),
        (AnswerOptions(interpolation=0.5), "interpolation is 0.5 where decoding is 'plain'"),
        (AnswerOptions(decoding="auto", eta=2.0, interpolation=0.5), "eta is 2.0 and interpolation 0.5"),
    ],
)
def test_senseless_options_are_refused_before_the_search(options, named):
    class Silent:
        def search(self, query):
            raise AssertionError("searched")

    made = Answerer(Silent(), EMBEDDER, Drafting(TRUE))
    with pytest.raises(InvalidRequestError, match=named):
        next(iter(made.stream(QUESTION, options)))


def test_a_negative_long_context_is_refused():
    with pytest.raises(ConfigurationError, match=r"long_tokens is -1"):
        AnswerConfig(long_tokens=-1)


def test_the_last_event_carries_the_trace():
    *_, last = Answerer(Found(), EMBEDDER, Drafting(TRUE), AnswerConfig(mode="composed")).stream(QUESTION)
    assert isinstance(last, Done)
    assert last.answer.trace["written"]


def test_a_model_whose_server_is_down_leaves_quotations():
    class Absent(Scripted):
        def stream(self, messages, sampling, cancelled=lambda: False):
            raise UnavailableError("The server did not answer.")
            yield

    made = answer(Absent(), config=AnswerConfig())
    assert made.found
    assert made.mode == "extractive"
    assert any("did not answer" in what for what in made.degraded)
