"""RAPID: drafting on retrieved context, verifying on long context (Chen et al. 2025).

A round drafts a few tokens, lets the target read them in one pass and keeps those that the target would
have chosen; what follows is as if they had been chosen one by one. Whether a round is worth it is predicted
from measured costs and observed acceptance, for each round anew.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace

from pipeline.errors import ModelMemoryError
from pipeline.lm.drafters import LookupDrafter, ModelDrafter
from pipeline.lm.gains import Acceptance, Choice, best_length
from pipeline.lm.request import MOST_DRAFT_TOKENS, Speculation
from pipeline.lm.sampling import Chooser
from pipeline.lm.step_costs import StepCosts
from pipeline.lm.target import Target
from pipeline.lm.verification import Draft, verify
from pipeline.lm.writing import Token

_MARGIN = 1.05
"""A predicted gain below this is within the error of the prediction."""

_BY_MATCH = {1: 0.2, 2: 0.4, 3: 0.6, 4: 0.75, 6: 0.85}
PRIORS: Mapping[Hashable, float] = {"model": 0.6, **{("lookup", n): rate for n, rate in _BY_MATCH.items()}}
"""Acceptance that is expected of a drafter, or of a match of so many tokens, before any was seen."""


@dataclass(slots=True)
class Ledger:
    """What speculation did for one answer."""

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    began: float = 0.0
    plain_seconds: float = 0.0
    predicted_plain: float = 0.0
    predicted_seconds: float = 0.0
    best_rejected: float = 0.0
    reason: str = ""
    degraded: tuple[str, ...] = ()

    def usage(self, speculation: Speculation) -> dict[str, int | float | str]:
        """For people: what was drafted and accepted, what it was predicted to bring and what it brought."""
        seconds = time.perf_counter() - self.began
        told: dict[str, int | float | str] = {
            "decoding": "speculative" if self.rounds else "plain",
            "draft_rounds": self.rounds,
            "drafted_tokens": self.drafted,
            "accepted_tokens": self.accepted,
        }
        if self.drafted:
            told["acceptance"] = round(self.accepted / self.drafted, 4)
        if self.rounds and self.predicted_seconds:
            told["predicted_gain"] = round(self.predicted_plain / self.predicted_seconds, 3)
            told["measured_gain"] = round(self.plain_seconds / seconds, 3)
        for name in ("eta", "interpolation"):
            if value := getattr(speculation, name):
                told[name] = value
        if not self.rounds:
            told["not_speculating"] = self.reason or "nothing to draft from was found"
        return told


class SpeculativeRounds:
    """Writes one answer round by round. ``costs`` are the target's; see :class:`Drafting` for the rest."""

    def __init__(
        self,
        target: Target,
        chooser: Chooser,
        speculation: Speculation,
        costs: StepCosts,
        acceptance: Acceptance,
        *,
        lookup: LookupDrafter | None,
        model: ModelSource | None,
        expected_tokens: float,
    ) -> None:
        """``lookup`` and ``model`` are the drafters to be used. ``expected_tokens`` is how long the answer
        will probably be, to know whether the drafter's own reading will pay."""
        self._target = target
        self._chooser = chooser
        self._asked = speculation
        self._costs = costs
        self._trial = acceptance.trial()
        self._lookup = lookup
        self._model = model
        self._expected_tokens = expected_tokens
        self.ledger = Ledger(began=time.perf_counter())

    def next(self, most_tokens: int, cancelled: Callable[[], bool]) -> list[Token]:
        """At least one more token and at most so many; none only once ``cancelled()``."""
        draft, predicted = self._draft(min(most_tokens - 1, MOST_DRAFT_TOKENS), cancelled)
        if cancelled():
            return []
        context = self._target.context_tokens
        asked, logits = self._asked, self._target.read(draft.tokens)
        tokens = verify(
            self._chooser,
            logits,
            draft,
            eta=asked.eta,
            alpha=asked.alpha,
            interpolation=asked.interpolation,
        )
        self._target.settle(tokens)
        self._learn(context, draft, tokens, predicted)
        if not draft.tokens and not draft.guides:
            return [replace(token, mark="p") for token in tokens]
        return tokens

    def _draft(self, most: int, cancelled: Callable[[], bool]) -> tuple[Draft, Choice | None]:
        """The most promising draft, empty if none promises a gain (unless one is demanded)."""
        found = self._lookup.propose(most, cancelled) if self._lookup is not None and most else Draft()
        options: list[tuple[Choice, str]] = []
        if found.tokens:
            options.append((self._worth(_key(found), self._lengths(len(found.tokens))), "lookup"))
        if (
            self._model is not None
            and (most or self._asked.is_guided)
            and self._may_use_model(most, cancelled)
        ):
            options.append((self._worth("model", self._lengths(most)), "model"))
        if not options or cancelled():
            return Draft(), None
        choice, source = max(options, key=lambda option: option[0].gain)
        if not self._asked.is_demanded and choice.gain < _MARGIN:
            self.ledger.best_rejected = max(self.ledger.best_rejected, choice.gain)
            return Draft(), None
        draft = self._drawn(source, found, choice.draft_tokens, cancelled)
        # The drafter may have stopped earlier; what that is worth is known before the target reads it.
        return draft, self._worth(_key(draft), range(len(draft.tokens), len(draft.tokens) + 1), draft.passes)

    def _drawn(self, source: str, found: Draft, length: int, cancelled: Callable[[], bool]) -> Draft:
        drafter = self._model.drafter if self._model is not None else None
        if source == "model" and self._model is not None and drafter is not None:
            written = drafter.propose(length, cancelled)
            self._model.observe(written)
            return written
        draft = replace(found, tokens=found.tokens[:length], proposals=found.proposals[:length])
        return drafter.follow(draft) if self._asked.is_guided and drafter is not None else draft

    def _lengths(self, most: int) -> range:
        """Draft lengths to choose from: the one that was asked for, or any."""
        fixed = self._asked.draft_tokens
        least = min(1, most) if fixed is None else min(fixed, most)
        return range(least, (most if fixed is None else least) + 1)

    def _worth(self, key: Hashable, lengths: range, passes: int | None = None) -> Choice:
        """The length that is expected to pay most for a draft of this kind, in this context.

        ``passes`` of the drafting model are known once there is a draft.
        """
        context, others = self._target.context_tokens, self._target.others
        guiding = self._asked.is_guided

        def seconds(length: int) -> float:
            drafting = 0.0
            if self._model is not None and passes is not None:
                drafting = self._model.seconds(passes)
            elif self._model is not None and (key == "model" or guiding):
                drafting = self._model.seconds(self._model.passes(length if key == "model" else 0) + guiding)
            return drafting + self._costs.seconds(context, length + 1 + others)

        plain = self._costs.seconds(context, 1 + others)
        return best_length(self._trial.rate(key), lengths, plain, seconds, others)

    @property
    def _plain_seconds(self) -> float:
        """What a pass without a draft takes, with those who share it."""
        return self._costs.seconds(self._target.context_tokens, 1 + self._target.others)

    def _may_use_model(self, most: int, cancelled: Callable[[], bool]) -> bool:
        """Whether the drafter has read its passages, or now does because it will pay (or is demanded)."""
        assert self._model is not None
        if self._model.drafter is not None:
            return True
        if self._model.failed:
            return False
        if not self._asked.is_demanded:
            choice = self._worth("model", self._lengths(most))
            plain = self._expected_tokens * self._plain_seconds
            gain = plain / (plain / choice.gain + self._model.start_seconds)
            if gain < _MARGIN:
                self.ledger.best_rejected = max(self.ledger.best_rejected, gain)
                return False
        try:
            started = self._model.start(self._chooser, cancelled)
            self.ledger.predicted_seconds += self._model.start_seconds
            return started
        except ModelMemoryError as error:
            self._model.failed = True
            without = ", without its guidance" if self._asked.is_guided else ""
            self.ledger.degraded = (f"no memory for the drafter, decoded plainly{without}: {error.message}",)
            self.ledger.reason = "no memory for the drafter"
            return False

    def _learn(self, context: int, draft: Draft, tokens: Several[Token], predicted: Choice | None) -> None:
        written = [token.id for token in tokens]
        accepted = sum(token.mark == "d" for token in tokens)
        for drafter in (self._lookup, self._model.drafter if self._model is not None else None):
            if drafter is not None:
                drafter.settle(written)
        if self._target.seconds is not None:
            self._costs.learn(context, len(draft.tokens) + 1, self._target.seconds)
        ledger = self.ledger
        plain = self._plain_seconds
        ledger.tokens += len(tokens)
        ledger.plain_seconds += len(tokens) * plain
        if draft.tokens:
            ledger.rounds += 1
            ledger.drafted += len(draft.tokens)
            ledger.accepted += accepted
            self._trial.observe(_key(draft), len(draft.tokens), accepted)
        # A round without a draft is predicted to be what it is.
        ledger.predicted_plain += predicted.tokens * plain if predicted is not None else len(tokens) * plain
        ledger.predicted_seconds += predicted.seconds if predicted is not None else plain

    @property
    def degraded(self) -> tuple[str, ...]:
        """What could not be done as asked."""
        return self.ledger.degraded

    def close(self) -> None:
        """The answer is complete: what the drafter read is kept for later requests."""
        if self._model is not None:
            self._model.close()

    def usage(self) -> dict[str, int | float | str]:
        """How the answer was decoded."""
        if not self.ledger.rounds and not self.ledger.reason and self.ledger.best_rejected:
            self.ledger.reason = (
                f"the best draft was predicted to be {self.ledger.best_rejected:.2f} times as fast"
            )
        return self.ledger.usage(self._asked)


class ModelSource:
    """A drafting language model that reads its prompt only when it is needed."""

    def __init__(
        self,
        make: Callable[[Chooser, Callable[[], bool]], ModelDrafter | None],
        keep: Callable[[ModelDrafter], None],
        costs: StepCosts,
        prompt_tokens: int,
        start_seconds: float,
    ) -> None:
        """``make`` reads the prompt and gives None if cancelled meanwhile; it takes ``start_seconds``.
        ``keep`` is told at the end."""
        self._make = make
        self._keep = keep
        self._costs = costs
        self._prompt_tokens = prompt_tokens
        self.start_seconds = start_seconds
        self._drafted, self._passes = 4.0, 4.0
        self.drafter: ModelDrafter | None = None
        self.failed = False

    def start(self, chooser: Chooser, cancelled: Callable[[], bool]) -> bool:
        """Read the prompt. Raises ModelMemoryError."""
        self.drafter = self._make(chooser, cancelled)
        return self.drafter is not None

    def close(self) -> None:
        """The answer is complete."""
        if self.drafter is not None:
            self._keep(self.drafter)

    def seconds(self, passes: float) -> float:
        """What so many passes take."""
        context = self.drafter.sequence.length_tokens if self.drafter is not None else self._prompt_tokens
        return passes * self._costs.seconds(context, 1)

    def passes(self, draft_tokens: int) -> float:
        """Passes that a draft is expected to take: one more than tokens where it ends in doubt."""
        return draft_tokens * self._passes / self._drafted

    def observe(self, draft: Draft) -> None:
        """Learn from a draft that was made."""
        self._drafted += len(draft.tokens)
        self._passes += draft.passes


def _key(draft: Draft) -> Hashable:
    """What drafts are alike in how often they are accepted."""
    if draft.source != "lookup":
        return draft.source
    size = draft.match_tokens
    return ("lookup", size if size < 4 else 4 if size < 6 else 6)
