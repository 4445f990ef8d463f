"""The read flow: Query -> Hits -> Context -> quotes and a verified draft -> Answer, streamed.

Quotes need no language model: they are the sentences that answer best. A model's own sentences are
verified one at a time and only the supported ones become text. Which of the two leads is a setting
(``trusted``), because a model of 135 million parameters is often wrong and one of 70 billion seldom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args

from pipeline import cues, ground, prompt
from pipeline import evidence as evidences
from pipeline.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
    ModelError,
    NotFoundError,
    WorkCancelledError,
)
from pipeline.events import Cited, Contextualised, Done, Event, Retrieved, TokenDelta
from pipeline.evidence import Evidence, Ranking, Terms
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.order import ReadingOrder, arrange
from pipeline.seams import Embedder, LanguageModel, Sampling, TextDelta
from pipeline.sentences import sentences
from pipeline.types import Answer, Citation, Context, Document, Query, Retrieval, Statement

Mode = Literal["auto", "extractive", "composed"]
NOT_FOUND = "The documents do not contain an answer to this question."


class Retriever(Protocol):
    """Finds passages; see :mod:`pipeline.retrieve`."""

    def search(self, query: Query) -> Retrieval:
        """Hits best first."""
        ...


class Documents(Protocol):
    """The record of truth, for pages and for a last check of every quote; the ledger is one."""

    def load(self, tenant: str, collection: str, document_id: str, version: int | None = None) -> Document:
        """The document with its text. Raises NotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """How answers are made and checked."""

    mode: Mode = "auto"
    """`extractive` quotes; `composed` lets the model write, verified; `auto` does both."""
    trusted: bool = False
    """Whether the language model is strong enough for its composed answer to lead in `auto`."""
    max_quotes: int = 3
    """Most sentences quoted in one answer."""
    quote_margin: float = 0.8
    """A further quote may score this much less than the best (scale of the sentence ranking)."""
    found_threshold: float = 0.4
    """Below this likelihood that the passages answer, the answer is that the documents do not."""
    evidence_tokens: int = 4096
    """Tokens (of the embedder) of passages searched for quotes and support."""
    prompt_tokens: int = 1024
    """Tokens of passages the language model reads."""
    max_tokens: int = 96
    """Most tokens the language model writes."""
    max_sentences: int = 3
    """Sentences after which the language model is stopped."""
    order: ReadingOrder = "reverse"
    """Reading order of passages in the prompt: `score`, `reverse`, `edges` or `document`."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigurationError(
                f"There is no answer mode {self.mode!r}.", remedy=f"Choose from: {', '.join(get_args(Mode))}."
            )
        for name in ("max_quotes", "evidence_tokens", "prompt_tokens", "max_tokens", "max_sentences"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"answer.{name} is {getattr(self, name)}.", remedy="Set 1 or more.")
        if not 0 <= self.found_threshold <= 1:
            raise ConfigurationError(
                f"answer.found_threshold is {self.found_threshold}.", remedy="Set it between 0 and 1."
            )


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What one request asks for; None takes the configuration's value."""

    mode: Mode | None = None
    max_tokens: int | None = None


@dataclass(slots=True)
class _Run:
    """What accumulates while one answer is made."""

    query: Query
    cancelled: Callable[[], bool]
    timings: dict[str, float] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to the stage, unless cancelled before it begins."""
        if self.cancelled():
            raise WorkCancelledError(f"The answer was cancelled before {stage}.")
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - began


class Answerer:
    """Answers questions. Holds no state of a request; safe for several threads if its parts are."""

    def __init__(
        self,
        retriever: Retriever,
        embedder: Embedder,
        language_model: LanguageModel | Callable[[], LanguageModel] | None,
        config: AnswerConfig = AnswerConfig(),
        *,
        lexical: LexicalConfig | None = None,
        documents: Documents | None = None,
    ) -> None:
        """A callable model is called by the first answer that needs it. ``lexical`` gives
        the language whose stems make words alike. ``documents`` gives citations their own page and checks
        each quote against the stored text."""
        self._retriever = retriever
        self._embedder = embedder
        self._language_model = language_model
        self._config = config
        lexical = lexical or LexicalConfig()
        self._terms: Terms = Analyser(
            replace(lexical, bigram_weight=0.0, stop_words=(*lexical.stop_words, *sorted(cues.STOP_WORDS)))
        ).terms
        self._documents = documents

    def answer(
        self,
        query: Query,
        options: AnswerOptions = AnswerOptions(),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """The whole answer at once. Raises what :meth:`stream` raises."""
        for event in self.stream(query, options, cancelled):
            if isinstance(event, Done):
                return event.answer
        raise WorkCancelledError("The answer ended early.")

    def stream(
        self,
        query: Query,
        options: AnswerOptions = AnswerOptions(),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Events as they happen; see :mod:`pipeline.events`.

        Raises InvalidRequestError for an empty question, WorkCancelledError within one stage or one
        token of ``cancelled()`` being true, and what retrieval raises. A missing or failing language
        model is no error: the answer is then quotes, and ``degraded`` says why.
        """
        if not query.text.strip():
            raise InvalidRequestError("The question is empty.", remedy="Ask something.")
        config = _with(self._config, options)
        run = _Run(query, cancelled)
        with run.timed("retrieve"):
            retrieval = self._retriever.search(query)
        run.degraded += retrieval.degraded
        yield Retrieved(retrieval)
        with run.timed("order"):
            context = arrange(
                retrieval.hits,
                budget_tokens=query.budget_tokens or config.evidence_tokens,
                count_tokens=lambda text: len(self._embedder.encode(text)),
            )
        yield Contextualised(context)
        with run.timed("extract"):
            read = evidences.gather(context.passages, self._embedder, self._terms)
            ranking = evidences.rank(query.text, read, self._embedder, self._terms)
        run.usage |= {"context_tokens": context.tokens, "sentences": len(read.sentences)}
        if ranking.answerable < config.found_threshold:
            yield from _say(run, NOT_FOUND)
            yield Done(_finish(run, context, found=False, mode="extractive"))
            return
        composed_leads = config.mode == "composed" or (config.mode == "auto" and config.trusted)
        if not composed_leads:
            yield from self._quote(run, config, read, ranking)
        if config.mode != "extractive":
            yield from self._compose(run, config, read, ranking)
        if not any(statement.supported for statement in run.statements):
            if composed_leads:
                run.degraded.append(
                    "nothing the language model wrote is supported; passages are quoted instead"
                )
            composed_leads = False
            yield from self._quote(run, config, read, ranking)
        yield Done(_finish(run, context, found=True, mode="composed" if composed_leads else "extractive"))

    def _quote(self, run: _Run, config: AnswerConfig, read: Evidence, ranking: Ranking) -> Iterator[Event]:
        """Lead with the sentences that answer best."""
        with run.timed("extract"):
            chosen = evidences.best(read, ranking, config.max_quotes, config.quote_margin)
            citations = [self._checked(run, ground.cite(hit, start, end)) for hit, start, end in chosen]
        for citation in citations:
            if citation is not None:
                text = " ".join(citation.quote.split())
                statement = Statement(text, "quoted", supported=True, support=1.0, citations=(citation,))
                yield from _state(run, statement)

    def _compose(self, run: _Run, config: AnswerConfig, read: Evidence, ranking: Ranking) -> Iterator[Event]:
        """Let the model write, and say only what is supported."""
        model = self._model(run)
        if model is None:
            return
        with run.timed("prompt"):
            built = prompt.build(
                run.query.text,
                evidences.passages_by_evidence(read, ranking),
                model,
                budget_tokens=config.prompt_tokens,
                max_tokens=config.max_tokens,
                order=config.order,
            )
        if built is None:
            run.degraded.append(f"the question is too long for {model.name} ({model.window_tokens} tokens)")
            return
        run.dropped += [f"not in the prompt: {reason}" for reason in built.context.dropped]
        run.usage |= {"prompt_tokens": built.tokens, "completion_tokens": 0}
        try:
            for sentence in self._sentences(run, config, model, built):
                with run.timed("ground"):
                    statement = ground.ground([sentence], run.query.text, read, self._embedder, self._terms)[
                        0
                    ]
                    statement = self._recited(run, statement)
                if not _repeats(statement, run.statements):
                    yield from _state(run, statement)
        except ModelError as error:
            run.degraded.append(f"the language model failed: {error}")

    def _sentences(
        self, run: _Run, config: AnswerConfig, model: LanguageModel, built: prompt.Prompt
    ) -> Iterator[str]:
        """Sentences of the model, each as soon as the next one begins."""
        sampling = Sampling(max_tokens=config.max_tokens, stop=("\n",))
        began = time.perf_counter()
        written, given = "", 0
        with _closed_after(model.stream(built.messages, sampling, run.cancelled)) as deltas:
            for delta in deltas:
                run.timings.setdefault("first_token", time.perf_counter() - began)
                run.usage["completion_tokens"] += delta.tokens
                written += delta.text
                if delta.finish == "cancelled" or run.cancelled():
                    raise WorkCancelledError("The answer was cancelled while it was written.")
                done = sentences(written)
                complete = len(done) if delta.finish == "stop" else len(done) - 1
                for start, end in done[given : min(complete, config.max_sentences)]:
                    run.timings["generate"] = time.perf_counter() - began
                    yield written[start:end]
                given = max(given, complete)
                if given >= config.max_sentences:
                    break
        # A sentence cut off by the token limit is not a statement; it is left out.
        run.timings["generate"] = time.perf_counter() - began - run.timings.get("ground", 0.0)

    def _model(self, run: _Run) -> LanguageModel | None:
        """The model, loaded now if need be; None, with the reason in ``degraded``, if there is none."""
        if self._language_model is None:
            run.degraded.append("no language model is configured: the answer is quotations only")
            return None
        if isinstance(self._language_model, LanguageModel):
            return self._language_model
        try:
            with run.timed("load"):
                return self._language_model()
        except (ModelError, MissingDependencyError) as error:
            run.degraded.append(
                f"the language model is not available, the answer is quotations only: {error}"
            )
            return None

    def _recited(self, run: _Run, statement: Statement) -> Statement:
        """The statement with its citations checked; unsupported if none is left."""
        checked = tuple(c for c in (self._checked(run, c) for c in statement.citations) if c is not None)
        if statement.supported and not checked:
            return replace(statement, supported=False, support=0.0, citations=())
        return replace(statement, citations=checked)

    def _checked(self, run: _Run, citation: Citation) -> Citation | None:
        """The citation with its own pages, or None if the stored text does not have the quote there."""
        if self._documents is None:
            return citation
        query = run.query
        try:
            document = self._documents.load(
                query.tenant, query.collection, citation.document_id, citation.version
            )
        except NotFoundError:
            run.degraded.append(f"{citation.title or citation.document_id} was removed meanwhile")
            return None
        if document.text[citation.start : citation.end] != citation.quote:
            run.degraded.append(f"the index of {citation.title or citation.document_id} is out of date")
            return None
        pages = [p.number for p in document.pages if p.start < citation.end and citation.start < p.end]
        return replace(citation, page_start=pages[0], page_end=pages[-1]) if pages else citation


def distinct_citations(statements: Sequence[Statement]) -> list[Citation]:
    """Citations of supported statements in order; ``[n]`` in an answer's text is the n-th, from 1."""
    return list(dict.fromkeys(c for s in statements if s.supported for c in s.citations))


def _state(run: _Run, statement: Statement) -> Iterator[Event]:
    run.statements.append(statement)
    if statement.supported:
        numbering = distinct_citations(run.statements)
        marks = "".join(f" [{numbering.index(citation) + 1}]" for citation in statement.citations)
        quoted = statement.origin == "quoted"
        yield from _say(run, f"“{statement.text}”{marks}" if quoted else f"{statement.text}{marks}")
    yield Cited(len(run.statements) - 1, statement)


def _say(run: _Run, text: str) -> Iterator[Event]:
    piece = f"\n{text}" if run.text else text
    run.text.append(piece)
    yield TokenDelta(piece)


def _finish(run: _Run, context: Context, *, found: bool, mode: Literal["extractive", "composed"]) -> Answer:
    return Answer(
        text="".join(run.text),
        found=found,
        statements=tuple(run.statements),
        context=replace(context, dropped=(*context.dropped, *run.dropped)),
        mode=mode,
        timings=dict(run.timings),
        usage=dict(run.usage),
        degraded=tuple(dict.fromkeys(run.degraded)),
    )


def _repeats(statement: Statement, earlier: Sequence[Statement]) -> bool:
    """Whether the model only said again what is already quoted in full."""
    said = " ".join(statement.text.split()).rstrip(".").casefold()
    return statement.supported and any(
        said in " ".join(s.text.split()).casefold() for s in earlier if s.supported
    )


def _with(config: AnswerConfig, options: AnswerOptions) -> AnswerConfig:
    given: Mapping[str, Mode | int | None] = {"mode": options.mode, "max_tokens": options.max_tokens}
    return replace(config, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


@contextmanager
def _closed_after(deltas: Iterator[TextDelta]) -> Iterator[Iterator[TextDelta]]:
    """Stop the model when no more of it is read; an iterator that cannot be closed just ends."""
    try:
        yield deltas
    finally:
        if isinstance(deltas, Generator):
            deltas.close()
