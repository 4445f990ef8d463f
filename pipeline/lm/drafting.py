"""What is needed to draft for one model: its drafter, both networks' costs, and what was accepted so far.

Importing this module is cheap; torch is imported when an answer is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import ConfigurationError, ModelMemoryError, PromptTooLongError
from pipeline.lm.request import Generation
from pipeline.lm.writing import Token

if TYPE_CHECKING:
    from pipeline.lm.drafters import ModelDrafter
    from pipeline.lm.gains import Acceptance
    from pipeline.lm.model import LocalModel
    from pipeline.lm.sampling import Chooser
    from pipeline.lm.speculate import ModelSource
    from pipeline.lm.target import Target

_USUAL_TOKENS = 32.0  # of an answer: what a drafter reads before it drafts must pay in so many


class Rounds(Protocol):
    """Decodes one answer."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """What could not be done as asked."""
        ...

    def next(self, most_tokens: int, cancelled: Callable[[], bool]) -> list[Token]:
        """At least one more token; none only once ``cancelled()``."""
        ...

    def usage(self) -> dict[str, int | float | str]:
        """How it was decoded."""
        ...

    def close(self) -> None:
        """The answer is complete."""
        ...


class Drafting:
    """Makes the rounds of each request."""

    def __init__(self, model: LocalModel, drafter: LocalModel) -> None:
        """Raises ConfigurationError for a drafter with another vocabulary."""
        if drafter is not model and drafter.chat.vocabulary != model.chat.vocabulary:
            raise ConfigurationError(
                f"The drafter {drafter.name} ({len(drafter.chat.vocabulary):,} tokens) has another "
                f"vocabulary than {model.name} ({len(model.chat.vocabulary):,}).",
                remedy="Draft with a model of the same family, or with lookup.",
            )
        self._model = model
        self._drafter = drafter

    def prompt(self, request: Generation) -> list[int]:
        """What the drafter reads, as tokens; empty if nothing is to be drafted.

        Raises PromptTooLongError if it must draft and cannot read it.
        """
        if request.speculation.decoding == "plain":
            return []
        ids = self._drafter.chat.prompt_ids(request.draft_messages or request.messages)
        needed = len(ids) + request.sampling.max_tokens
        must = request.speculation.is_demanded
        if self._wants_model(request) and must and needed > self._drafter.window_tokens:
            raise PromptTooLongError(
                f"Passages and draft need {needed:,} tokens; the drafter {self._drafter.name} reads "
                f"{self._drafter.window_tokens:,}.",
                remedy="Give the drafter fewer passages, ask for fewer tokens, or use decoding auto.",
            )
        return ids

    def rounds(
        self, request: Generation, target: Target, chooser: Chooser, draft_prompt: list[int], most_tokens: int
    ) -> Rounds:
        """The way in which one answer is decoded."""
        from pipeline.lm.drafters import LookupDrafter
        from pipeline.lm.speculate import SpeculativeRounds
        from pipeline.lm.target import PlainRounds

        asked = request.speculation
        if asked.decoding == "plain":
            return PlainRounds(target, chooser)
        sampling = request.sampling
        if not asked.is_demanded and sampling.temperature > 0 and sampling.seed is not None:
            why = "a seed was given, and what is drafted depends on how busy the machine is"
            return PlainRounds(target, chooser, reason=why)
        if not target.sequence.can_roll_back:
            why = f"the states of {self._model.name} cannot be rolled back"
            return PlainRounds(target, chooser, f"{why}, decoded plainly" if asked.is_demanded else "", why)
        try:
            costs = self._model.reader.costs
            source = self._source(request, draft_prompt) if self._wants_model(request) else None
        except ModelMemoryError as error:
            why = f"no memory to measure or draft: {error.message}"
            return PlainRounds(target, chooser, f"decoded plainly, {why}", why)
        return SpeculativeRounds(
            target,
            chooser,
            asked,
            costs,
            self._acceptance,
            lookup=LookupDrafter([draft_prompt]) if asked.drafter != "model" else None,
            model=source,
            expected_tokens=min(most_tokens, _USUAL_TOKENS),
        )

    def _source(self, request: Generation, prompt: list[int]) -> ModelSource | None:
        """The drafting model, which reads ``prompt`` when it is first wanted; None if it cannot."""
        from pipeline.lm.speculate import ModelSource

        room = request.sampling.max_tokens + 1
        if len(prompt) + request.sampling.max_tokens > self._drafter.window_tokens:
            return None
        reader = self._drafter.reader
        tenant = request.tenant if request.reuse else None
        known = reader.known_tokens(tenant, prompt) if tenant is not None else 0
        parts = -(-(len(prompt) - known) // reader.part_tokens)
        part_seconds = reader.part_seconds or reader.costs.seconds(
            len(prompt) // 2, min(len(prompt), reader.part_tokens)
        )

        def make(chooser: Chooser, cancelled: Callable[[], bool]) -> ModelDrafter | None:
            from pipeline.lm.drafters import ModelDrafter

            sequence = reader.begin(tenant, prompt, room)
            unread = prompt[len(sequence.ids) : -1]
            if unread and reader.read(sequence, unread, cancelled) is None:
                return None
            vocabulary = self._model.network.config.get_text_config(decoder=True).vocab_size
            drafter = ModelDrafter(sequence, prompt, chooser, vocabulary, reader.costs)
            drafter.guides = request.speculation.is_guided
            return drafter

        def keep(drafter: ModelDrafter) -> None:
            reader.keep(tenant, drafter.sequence)

        return ModelSource(make, keep, reader.costs, len(prompt), parts * part_seconds)

    @staticmethod
    def _wants_model(request: Generation) -> bool:
        return request.speculation.drafter != "lookup"

    @cached_property
    def _acceptance(self) -> Acceptance:
        from pipeline.lm.gains import Acceptance
        from pipeline.lm.speculate import PRIORS

        return Acceptance(PRIORS)
