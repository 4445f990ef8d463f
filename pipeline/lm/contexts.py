"""Cached contexts: passages read once, attended in parallel by any question, in any combination.

Adaptive parallel encoding (Yang et al. 2025): every passage is encoded behind the same prefix and at the
same positions; the question follows the longest one. So the time to the first token no longer depends on
how much is read, and passages that together exceed the model's window can be attended.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InvalidRequestError, WorkCancelledError
from pipeline.lm.context_options import ContextCalibration, ContextsConfig, Encoding, settled
from pipeline.lm.context_prompt import passage_ids
from pipeline.lm.context_reader import Continuation, PassageReader, Prefix
from pipeline.lm.context_request import Asked, Passage
from pipeline.lm.context_selection import Candidates, Pool
from pipeline.lm.kv_format import KvFormat, decode, encode
from pipeline.lm.kv_identity import Origin, PassageKey
from pipeline.lm.kv_store import Held, KvStore
from pipeline.lm.model import LocalModel
from pipeline.lm.reading import PREFILL_TOKENS
from pipeline.lm.request import MOST_DRAFT_TOKENS, PLAIN, Generation, Speculation
from pipeline.records import VersionKey
from pipeline.seams import Sampling, TextDelta

Cancelled = Callable[[], bool]
_KEY_SHARE = 16
"""One part in so many of the memory budget holds keys of the heads that choose passages."""

__all__ = ["Asked", "Contexts", "Passage", "Reading"]


@dataclass(slots=True)
class Reading:
    """A question read behind its passages: ``logits`` (1, V) are of the first token of the answer.

    ``attended`` are indices into the passages given. ``tokens`` are those of the whole prompt; ``usage``
    counts the passages' by where their states came from.
    """

    behind: Continuation
    logits: torch.Tensor
    attended: tuple[int, ...]
    tokens: int
    usage: dict[str, int] = field(default_factory=dict)


class Contexts:
    """Cached contexts of one model. Thread-safe; requests share passages."""

    def __init__(
        self,
        model: LocalModel,
        config: ContextsConfig | None = None,
        folder: Path | None = None,
        calibration: ContextCalibration | None = None,
    ) -> None:
        """Reads the prefix: a forward pass of some tokens. ``folder`` None keeps states in memory only.

        Raises ModelError for a model whose attention is not supported, ConfigurationError for a
        calibration of other weights, StorageError.
        """
        self._model = model
        self._reader = PassageReader(model)
        if calibration is not None:
            calibration.check(model.name, self._reader.revision)
        self.config = config = config or ContextsConfig()
        self.calibration = calibration
        self.folder = folder
        self._prefix: Prefix = self._reader.prefix(self._reader.frame("").head)
        key_bytes = config.memory_bytes // _KEY_SHARE if calibration and calibration.heads else 0
        self.store = KvStore(
            self._reader.shape(self._prefix),
            memory_bytes=config.memory_bytes - key_bytes,
            kind=config.format,
            folder=folder,
            disk_bytes=config.disk_bytes,
        )
        self.origin: Origin = self._reader.origin(self._prefix, self.store.kind)
        self._candidates = Candidates(self._reader, self._prefix, calibration, key_bytes)

    def passage(
        self, owner: VersionKey, title: str, text: str, score: float = 0.0, searched: float = 0.0
    ) -> Passage:
        """A passage as this model reads it. Raises PromptTooLongError if it exceeds the model's window."""
        ids = tuple(passage_ids(self._model.chat, title, text))
        self._reader.check_fits(len(self._prefix.ids) + len(ids) + 1)
        return Passage(PassageKey.of(owner, ids), ids, score, searched)

    @property
    def busy(self) -> bool:
        """Whether anybody uses the model at this moment: work in the background should wait."""
        return self._model.engine.busy

    def has_all(self, passages: Sequence[Passage]) -> bool:
        """Whether the states of all these passages are in memory or on disk."""
        return all(self.store.where(passage.key, self.origin) for passage in passages)

    def warm(self, passages: Sequence[Passage], cancelled: Cancelled = lambda: False) -> Iterator[str]:
        """Build what is not there yet, one passage after the other; says where each was found."""
        for passage in passages:
            with self.held([passage], cancelled) as [held]:
                yield held.found

    @contextmanager
    def reading(self, asked: Asked, *, room_tokens: int, observe: bool = False) -> Iterator[Reading]:
        """The question read behind the passages, which stay in memory until the block ends.

        Of more passages than ``attended`` says, the best are chosen by the model's own heads on the cached
        keys, fused with the retriever's scores. Raises PromptTooLongError, LimitExceededError if memory
        cannot hold them, WorkCancelledError, InvalidRequestError.
        """
        tail = self._reader.frame(asked.question).tail
        with self._behind(asked, tail, room_tokens, observe=observe) as (behind, chosen, held):
            logits = self._model.reader.read(behind.sequence, tail, asked.cancelled)
            if logits is None:
                raise WorkCancelledError("The request was cancelled while its question was read.")
            behind.attention.reset_masses()
            tokens = len(self._prefix.ids) + sum(one.key.tokens for one in held) + len(tail)
            yield Reading(behind, logits, tuple(chosen), tokens, _usage(held))

    def stream(
        self,
        asked: Asked,
        sampling: Sampling,
        opened: Callable[[Reading], None] = lambda _: None,
        *,
        speculation: Speculation = PLAIN,
        observe: bool = False,
    ) -> Generator[TextDelta]:
        """Generate an answer behind the passages, as :meth:`LocalModel.generate` does behind a prompt.

        ``opened`` is told once, before the first token. A drafter reads the attended passages one after the
        other, as many as fit its window.
        """
        from pipeline.lm.sampling import check

        check(sampling)
        speculation.check()
        asked.options.check()
        request = Generation((), sampling, speculation, tenant=asked.tenant, cancelled=asked.cancelled)
        return self._write(asked, request, opened, observe=observe)

    def logprob(
        self, asked: Asked, answer: str, *, sequential: bool = False, through: KvFormat | None = None
    ) -> list[float]:
        """Natural logarithm of each token's probability, were ``answer`` the answer.

        ``sequential`` reads the same tokens one after the other instead, without the cache. ``through``
        takes the states as if they had been stored in another format.
        """
        ids = self._model.chat.encode(answer)
        if not ids:
            raise InvalidRequestError("The answer is empty.", remedy="Give the text to be scored.")
        if sequential:
            return _chosen_logprobs(self._reader.logits_of(ids, self.sequential_ids(asked)), ids)
        read = [*self._reader.frame(asked.question).tail, *ids[:-1]]
        tail = read[: len(read) - len(ids) + 1]
        with self._behind(asked, tail, len(ids), through=through) as (behind, _, _):
            return _chosen_logprobs(behind.read(read, len(ids)), ids)

    def sequential_ids(self, asked: Asked) -> list[int]:
        """The same prompt with all passages one after the other."""
        return self._reader.frame(asked.question).sequential([p.ids for p in asked.passages])

    def rank(self, asked: Asked) -> tuple[list[float], list[float]]:
        """Scores of all passages by the calibrated heads alone, and fused with the retriever's."""
        tail = self._reader.frame(asked.question).tail
        pool = self._pool(asked)
        return self._candidates.looks(tail, pool), self._candidates.scores(
            tail, pool, [passage.score for passage in asked.passages]
        )

    def measured_cost(self) -> dict[str, float]:
        """What keeping states costs, to be shown before it is switched on: bytes of 1,000 tokens, and the
        seconds that building them takes, measured now on a passage that is not kept."""
        ids = [(7 * n) % 200 for n in range(PREFILL_TOKENS)]
        began = time.perf_counter()
        self._reader.encode(self._prefix, ids)
        seconds = 1000 * (time.perf_counter() - began) / len(ids)
        return {"bytes_per_1000_tokens": self.store.passage_bytes(1000), "seconds_per_1000_tokens": seconds}

    def close(self) -> None:
        """Finish writing to disk and let go of everything."""
        self.store.close()

    @contextmanager
    def _behind(
        self,
        asked: Asked,
        tail: Sequence[int],
        room_tokens: int,
        *,
        observe: bool = False,
        through: KvFormat | None = None,
    ) -> Iterator[tuple[Continuation, list[int], list[Held]]]:
        """The place behind the passages that are chosen for this question, their indices and states."""
        values = settled(self.config, asked.options, self.calibration)
        pool = self._pool(asked)
        chosen = self._chosen(asked, tail, values, pool)
        searched = np.array([asked.passages[i].searched for i in chosen], np.float32)
        with self.held([asked.passages[i] for i in chosen], asked.cancelled) as now:
            held = [replace(one, found=pool.found.get(one.key, one.found)) for one in now]
            states = [self.store.states(one) for one in held]
            if through is not None:
                states = [decode(encode(one, through), through, self.store.shape.dtype) for one in states]
            behind = self._reader.resume(
                self._prefix,
                states,
                room_tokens=len(tail) + room_tokens,
                temperature=values.temperature,
                scale=values.scale,
                biases=asked.bias.of(searched) if asked.bias else (),
                observe=observe,
            )
            try:
                yield behind, chosen, held
            finally:  # whoever keeps the reading keeps no states that the store has let go
                behind.attention.let_go()

    def held(
        self, passages: Sequence[Passage], cancelled: Cancelled = lambda: False
    ) -> AbstractContextManager[list[Held]]:
        """The states of these passages, found or built, for as long as the block lasts; see KvStore."""
        return self.store.hold(
            [passage.key for passage in passages],
            self.origin,
            lambda i: self._reader.encode(self._prefix, passages[i].ids, cancelled),
            cancelled,
        )

    def _pool(self, asked: Asked) -> Pool:
        keys = [passage.key for passage in asked.passages]
        return Pool(
            keys, self.store, lambda some: self.held([asked.passages[i] for i in some], asked.cancelled)
        )

    def _chosen(self, asked: Asked, tail: Sequence[int], values: Encoding, pool: Pool) -> list[int]:
        """Indices of the passages to attend, in the order given."""
        passages = asked.passages
        if values.attended is None or len(passages) <= values.attended:
            return list(range(len(passages)))
        scores = self._candidates.scores(tail, pool, [passage.score for passage in passages])
        best = sorted(range(len(passages)), key=lambda i: -scores[i])[: values.attended]
        return sorted(best)

    def _write(
        self, asked: Asked, request: Generation, opened: Callable[[Reading], None], *, observe: bool
    ) -> Generator[TextDelta]:
        most_tokens = request.sampling.max_tokens
        drafts = request.speculation.decoding != "plain"
        room_tokens = most_tokens + (MOST_DRAFT_TOKENS if drafts else 0)
        try:
            with self.reading(asked, room_tokens=room_tokens, observe=observe) as reading:
                opened(reading)
                draft = self._draft_ids(asked, reading, room_tokens) if drafts else ()
                yield from self._model.write(
                    request, reading.behind.sequence, reading.logits, most_tokens, draft, usage=reading.usage
                )
        except WorkCancelledError:
            yield TextDelta("", 0, "cancelled")

    def _draft_ids(self, asked: Asked, reading: Reading, room_tokens: int) -> list[int]:
        """What a drafter reads: the best attended passages that fit the window, one after the other."""
        best = sorted((asked.passages[i] for i in reading.attended), key=lambda passage: -passage.score)
        taken = sum(asked.passages[i].key.tokens for i in reading.attended)
        room = self._model.window_tokens - room_tokens - (reading.tokens - taken)
        kept: list[Passage] = []
        for passage in best:
            if passage.key.tokens <= room:
                kept.insert(0, passage)  # the best one last, next to the question
                room -= passage.key.tokens
        return self.sequential_ids(replace(asked, passages=kept))


def _chosen_logprobs(logits: torch.Tensor, ids: Sequence[int]) -> list[float]:
    targets = torch.tensor(ids, device=logits.device)
    scores: list[float] = logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0].tolist()
    return scores


def _usage(held: Sequence[Held]) -> dict[str, int]:
    """Tokens of passages by where they were found, as ``usage`` of an answer tells it."""
    found = {"memory": 0, "disk": 0, "built": 0}
    for one in held:
        found[one.found] += one.key.tokens
    return {
        "cached_tokens": found["memory"] + found["disk"],
        "cached_memory_tokens": found["memory"],
        "cached_disk_tokens": found["disk"],
        "encoded_tokens": found["built"],
        "attended_passages": len(held),
    }
