"""The read flow: Query -> Hits -> Context -> quotes and a verified draft -> Answer, streamed.

Quotes need no language model: they are the sentences that answer best. A model's own sentences are
verified one at a time and only the supported ones become text. Which of the two leads is a setting
(``trusted``), because a model of 135 million parameters is often wrong and one of 70 billion seldom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import Literal, Protocol, TypeVar

from pipeline import cues, ground
from pipeline import evidence as evidences
from pipeline.answer_config import DEFAULTS, NOTHING_ASKED, AnswerConfig, AnswerOptions, Mode
from pipeline.cached_reading import CachedReading
from pipeline.compose import STOP, composed, named_failures, written
from pipeline.compress import shortened
from pipeline.errors import InvalidRequestError, LongleafError, ModelError, WorkCancelledError
from pipeline.events import Contextualised, Done, Event, Retrieved
from pipeline.evidence import Evidence, Ranking, Reader
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.lm.context_options import NO_OPTIONS
from pipeline.lm.request import PLAIN, Speculation
from pipeline.order import arrange
from pipeline.ordering import Advice, ordered
from pipeline.progress import Progress
from pipeline.recheck import Documents, recheck
from pipeline.seams import Embedder, LanguageModel, Sampling
from pipeline.similarity import calibrate
from pipeline.types import Answer, Hit, Query, Retrieval, Statement
from pipeline.weighing import wanted_bias, weighed
from pipeline.wide import long_prompt

__all__ = ["AnswerConfig", "AnswerOptions", "Answerer", "Mode", "Retriever"]

BESIDE_MARGINS = 2
T = TypeVar("T", AnswerConfig, Speculation)
NOT_FOUND = "The documents do not contain an answer to this question."


class Retriever(Protocol):
    """Finds passages; see :mod:`pipeline.retrieve`."""

    def search(self, query: Query) -> Retrieval:
        """Hits best first."""
        ...


class Answerer:
    """Answers questions. Holds no state of a request; safe for several threads if its parts are."""

    def __init__(
        self,
        retriever: Retriever,
        embedder: Embedder,
        language_model: LanguageModel | Callable[[], LanguageModel] | None,
        config: AnswerConfig = DEFAULTS,
        *,
        lexical: LexicalConfig | None = None,
        documents: Documents | None = None,
        advice: Advice | None = None,
        cached: CachedReading | None = None,
        speculation: Speculation = PLAIN,
    ) -> None:
        """A callable model is called by the first answer that needs it. ``lexical`` gives the language
        whose stems make words alike. ``documents`` gives citations their own page and checks each quote
        against the stored text. ``advice`` knows the language model's calibration and rerankers. ``cached``
        reads passages from cached contexts where settings or a request want that. ``speculation`` is how
        answers are drafted unless a request says otherwise."""
        self._retriever = retriever
        self._embedder = embedder
        self._language_model = language_model
        self._config = config
        lexical = lexical or LexicalConfig()
        self._terms = Analyser(
            replace(lexical, bigram_weight=0.0, stop_words=(*lexical.stop_words, *sorted(cues.STOP_WORDS)))
        ).terms
        self._documents = documents
        self._advice = advice
        self._cached = cached
        self._speculation = speculation

    @cached_property
    def reader(self) -> Reader:
        """How sentences are compared with a question: by meaning, and by stems that are alike."""
        return Reader(calibrate(self._embedder), self._terms)

    def answer(
        self,
        query: Query,
        options: AnswerOptions = NOTHING_ASKED,
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
        options: AnswerOptions = NOTHING_ASKED,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Events as they happen; see :mod:`pipeline.events`.

        Raises InvalidRequestError for an empty question, WorkCancelledError within one stage or one
        token of ``cancelled()`` being true, and what retrieval raises. A missing or failing language
        model is no error: the answer is then quotes, and ``degraded`` says why.
        """
        if not query.text.strip():
            raise InvalidRequestError("The question is empty.", remedy="Ask something.")
        config, speculation = _with(self._config, options), _with(self._speculation, options)
        speculation.check({"eta": options.eta, "interpolation": options.interpolation})
        run = Progress(query, cancelled, options.context or NO_OPTIONS, speculation)
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
            read = evidences.gather(context.passages, self.reader)
            ranking = evidences.rank(query.text, read, self.reader)
        run.usage |= {"context_tokens": context.tokens, "sentences": len(read.sentences)}
        if ranking.answerable < config.found_threshold:
            yield from run.say(NOT_FOUND)
            yield Done(run.finish(context, found=False, mode="extractive"))
            return
        composing_leads = config.mode == "composed" or (config.mode == "auto" and config.trusted)
        if not composing_leads:
            yield from self._quote(run, config, read, ranking)
        if config.mode != "extractive":
            yield from self._compose(run, config, read, ranking)
        if composing_leads and not run.supported:
            if "generate" in run.timings:  # else no model ran, and there is a note already that says why
                run.degraded.append(
                    "nothing the language model wrote is supported; passages are quoted instead"
                )
            composing_leads = False
            yield from self._quote(run, config, read, ranking)
        if not run.supported:
            yield from run.say(NOT_FOUND)
        mode: Literal["composed", "extractive"] = "composed" if composing_leads else "extractive"
        yield Done(run.finish(context, found=run.supported, mode=mode))

    def _quote(self, run: Progress, config: AnswerConfig, read: Evidence, best: Ranking) -> Iterator[Event]:
        """Lead with the sentences that answer best."""
        with run.timed("extract"):
            quotes = [
                self._rechecked(run, ground.quoted(hit, start, end))
                for hit, start, end in evidences.best(read, best, config.max_quotes, config.quote_margin)
            ]
        for statement in quotes:
            yield from run.state(statement)

    def _compose(self, run: Progress, config: AnswerConfig, read: Evidence, best: Ranking) -> Iterator[Event]:
        """Let the model write, and say only what is supported."""
        model = self._model(run)
        if model is None:
            return
        sentences = None
        if self._cached is not None:
            hits = evidences.passages_by_evidence(read, best)
            complaints: list[str] = []
            bias = wanted_bias(config, model, self._advice, complaints)
            sentences = self._cached.sentences(run, config, hits, run.speculation, bias)
            if sentences is not None:
                run.degraded += complaints
                if config.reweigh not in ("off", "auto", "bias"):
                    run.degraded.append("cached passages get no shares of attention: reweigh has no effect")
        if sentences is None:
            sentences = self._sequential(run, config, read, best, model)
        if sentences is None:
            return
        with closing(named_failures(sentences, run)) as said_so:
            for sentence in said_so:
                with run.timed("ground"):
                    said = self._verified(sentence, run.query.text, config, read, best)
                if not _repeats(said, run.statements):
                    yield from run.state(self._rechecked(run, said))

    def _sequential(
        self, run: Progress, config: AnswerConfig, read: Evidence, best: Ranking, model: LanguageModel
    ) -> Iterator[str] | None:
        """The sentences of a model that reads the passages one after the other; None, with the reason in
        ``degraded``, if none fits."""
        with run.timed("prompt"):
            made = ordered(
                run.query.text,
                self._shown(run, config, read, best, model),
                model,
                order=config.order,
                budget_tokens=config.prompt_tokens,
                max_tokens=config.max_tokens,
                advice=self._advice,
                cancelled=run.cancelled,
            )
            made = weighed(made, run, config, model, self._advice)
        built, run.ordering = made.prompt, made.ordering
        run.degraded += made.degraded
        if built is None or not built.context.passages:
            what = "the question is too long" if built is None else "no passage fits beside the question"
            run.degraded.append(f"{what} for {model.name} ({model.window_tokens} tokens)")
            return None
        run.dropped += [f"not in the prompt: {reason}" for reason in built.context.dropped]
        long = built
        if config.long_tokens:
            long = long_prompt(run, config, model, built, self._documents)
        run.usage |= {"prompt_tokens": long.tokens, "completion_tokens": 0}
        sampling = Sampling(config.max_tokens, stop=STOP)
        reuse = self._cached is None or self._cached.reuses(run.context)
        deltas = partial(
            written, model, long, run, sampling, config.context_strength, reuse=reuse, draft=built
        )
        try:
            begun = deltas(moved=made.moved)
        except (ModelError, InvalidRequestError) as error:  # passages that have no tokens of their own
            if made.moved is None:
                raise
            if config.reweigh != "auto":
                run.degraded.append(f"attention was not moved between passages: {error}")
            run.ordering = made.ordering and replace(made.ordering, shares={}, biases={})
            begun = deltas()
        return composed(
            begun,
            max_sentences=config.max_sentences,
            cancelled=run.cancelled,
            heard=run.listener(),
            enough=run.enough,
        )

    def _shown(
        self, run: Progress, config: AnswerConfig, read: Evidence, best: Ranking, model: LanguageModel
    ) -> list[Hit]:
        """The passages the model may read, shortened to their best sentences if so asked."""
        hits = evidences.passages_by_evidence(read, best)[: config.prompt_passages]
        if config.compress_tokens is None:
            return hits
        short, dropped = shortened(hits, read, best, model, config.compress_tokens)
        run.dropped += dropped
        return short

    def _verified(
        self, sentence: str, question: str, config: AnswerConfig, read: Evidence, best: Ranking
    ) -> Statement:
        """The sentence as a statement, supported only if it is grounded and its source is to the point:
        a model that lost its way copies whatever stands last, which is true but no answer."""
        [said] = ground.ground([sentence], question, read, self.reader, paraphrases=config.trusted)
        margin = BESIDE_MARGINS * config.quote_margin
        places = [(c.chunk_id, (c.start, c.end)) for c in said.citations]
        if all(evidences.is_beside_the_question(read, best, *place, margin) for place in places):
            return replace(said, supported=False, citations=())
        return said

    def _rechecked(self, run: Progress, statement: Statement) -> Statement:
        return recheck(statement, run.query, self._documents, run.degraded.append)

    def _model(self, run: Progress) -> LanguageModel | None:
        """The model, loaded now if need be; None, with the reason in ``degraded``, if there is none."""
        if self._language_model is None:
            run.degraded.append("no language model is configured: the answer is quotations only")
            return None
        if isinstance(self._language_model, LanguageModel):
            return self._language_model
        try:
            with run.timed("load"):
                return self._language_model()
        except WorkCancelledError:
            raise
        except LongleafError as error:
            run.degraded.append(  # not the error's words, which may name a path of the server
                f"the language model is not available ({error.code}), the answer is quotations only. "
                f"{error.remedy}".strip()
            )
            return None


def _repeats(statement: Statement, earlier: Sequence[Statement]) -> bool:
    """Whether the model only said again what is already quoted in full."""
    said = " ".join(statement.text.split()).rstrip(".").casefold()
    return statement.supported and any(
        said in " ".join(s.text.split()).casefold() for s in earlier if s.supported
    )


def _with(config: T, options: AnswerOptions) -> T:
    """The configuration with what the request says instead."""
    given = {field.name: getattr(options, field.name, None) for field in fields(config)}
    return replace(config, **{key: value for key, value in given.items() if value is not None})
