"""The answer flow's way to cached contexts: which mode a request gets, and what happens if it cannot.

Whatever stands in the way of cached passages (a model without support, too little memory, a passage longer
than the window) is said in ``degraded``, and the model reads sequentially.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from pipeline.compose import STOP, composed
from pipeline.errors import LongleafError, WorkCancelledError
from pipeline.lm.context_guard import Guard
from pipeline.lm.context_options import MOST_CANDIDATES, ContextMode, ContextOptions, ContextsConfig
from pipeline.lm.context_request import Asked, Passage
from pipeline.lm.request import PLAIN, Speculation
from pipeline.lm.signals import Bias
from pipeline.progress import Progress
from pipeline.records import VersionKey
from pipeline.seams import Sampling, TextDelta
from pipeline.types import Hit, Query

if TYPE_CHECKING:
    from pipeline.lm.contexts import Contexts, Reading


class WritingConfig(Protocol):
    """The part of the answers' configuration that says how much is read and written."""

    @property
    def prompt_passages(self) -> int:
        """Passages to attend where nothing else says how many."""
        ...

    @property
    def max_tokens(self) -> int:
        """Most tokens to be written."""
        ...

    @property
    def max_sentences(self) -> int:
        """Most sentences to be written."""
        ...


@dataclass(frozen=True, slots=True)
class Writing:
    """How the answer is written: most tokens, and how they are drafted."""

    max_tokens: int
    speculation: Speculation


class CachedReading:
    """Cached contexts for answers. Loads nothing before the first request that wants them."""

    def __init__(self, contexts: Callable[[], Contexts], config: ContextsConfig) -> None:
        """``contexts`` gives the cached contexts of the language model, made at first use."""
        self._contexts = contexts
        self._config = config
        self._made: Contexts | None = None
        self.guard = Guard(config.guard_share, config.guard_nats, self._is_busy)

    def reuses(self, options: ContextOptions) -> bool:
        """Whether a sequential reading may begin with what was read before."""
        return (options.mode or self._config.mode) != "sequential"

    def sentences(
        self,
        run: Progress,
        config: WritingConfig,
        hits: Sequence[Hit],
        speculation: Speculation = PLAIN,
        bias: Bias | None = None,
    ) -> Iterator[str] | None:
        """The sentences of an answer read behind cached passages of ``hits``, best first, or None where the
        model is to read sequentially; ``degraded`` says why if it was asked for.

        Raises InvalidRequestError for senseless options, WorkCancelledError.
        """
        options = run.context
        options.check()
        mode = options.mode or self._config.mode
        if mode in ("sequential", "prefix") or not hits:
            return None
        try:
            with run.timed("load"):
                self._made = contexts = self._contexts()
            if not self._suits(contexts, mode, run):
                return None
            with run.timed("contexts"):
                passages = [_passage(contexts, run.query, hit) for hit in hits[:MOST_CANDIDATES]]
                if self._config.build == "never" and not contexts.has_all(passages):
                    run.degraded.append("not all passages are cached, and contexts.build is never")
                    return None
            calibrated = contexts.calibration.attended if contexts.calibration else None
            most = options.attended or self._config.attended or calibrated or config.prompt_passages
            options = replace(options, attended=most)
            asked = Asked(run.query.text, passages, options, run.ended, run.query.tenant, bias)
            run.usage["completion_tokens"] = 0
            heard = run.listener()
            deltas = self._deltas(contexts, asked, run, hits, Writing(config.max_tokens, speculation))
            first = next(deltas)  # whatever stands in the way shows now
        except WorkCancelledError:
            raise
        except LongleafError as error:
            run.degraded.append(f"cached contexts were not used, the model read sequentially: {error}")
            return None
        return composed(
            chain([first], deltas),
            max_sentences=config.max_sentences,
            cancelled=run.cancelled,
            heard=heard,
            enough=run.enough,
        )

    def close(self) -> None:
        """Stop comparing answers."""
        self.guard.close()

    def _is_busy(self) -> bool:
        return self._made is not None and self._made.busy

    def _suits(self, contexts: Contexts, mode: ContextMode, run: Progress) -> bool:
        """Whether cached passages are good enough for this request."""
        if self.guard.drifted:
            run.degraded.append("cached contexts are switched off: compared answers differed too much")
            return False
        found = contexts.calibration
        if mode == "ape":
            return True
        # The unfavourable end of the interval: what is not known well enough is not good enough.
        return found is not None and found.most_loss_nats <= self._config.tolerance_nats

    def _deltas(
        self, contexts: Contexts, asked: Asked, run: Progress, hits: Sequence[Hit], writing: Writing
    ) -> Iterator[TextDelta]:
        opened: list[Reading] = []
        written, sampling = "", Sampling(writing.max_tokens, stop=STOP)
        made = contexts.stream(asked, sampling, opened.append, speculation=writing.speculation, observe=True)
        try:
            with closing(made) as deltas:
                for delta in deltas:
                    if opened:
                        run.usage |= {"prompt_tokens": opened[0].tokens, **opened[0].usage}
                        masses = opened[0].behind.attention.masses
                        run.attention |= {
                            hits[i].chunk_id: mass for i, mass in zip(opened[0].attended, masses, strict=True)
                        }
                    written += delta.text
                    yield delta
        finally:  # also where the reader has enough before the model ends
            if written.strip() and opened and not run.cancelled():
                read = sorted((asked.passages[i] for i in opened[0].attended), key=lambda each: each.score)
                self.guard.offer(_Written(contexts, replace(asked, passages=read, bias=None), written))


class _Written:
    """An answer that can be scored behind the passages it was written behind, and after reading the same
    ones in order, the best one last; both with attention as it is."""

    def __init__(self, contexts: Contexts, asked: Asked, text: str) -> None:
        self._contexts = contexts
        self._asked = replace(asked, cancelled=lambda: False)
        self._text = text

    def __call__(self, *, sequential: bool) -> float:
        logprobs = self._contexts.logprob(self._asked, self._text, sequential=sequential)
        return sum(logprobs) / len(logprobs)


def _passage(contexts: Contexts, query: Query, hit: Hit) -> Passage:
    owner = VersionKey(query.tenant, query.collection, hit.document_id, hit.version)
    return contexts.passage(owner, hit.title, hit.text, hit.score, hit.scores.get("search", hit.score))
