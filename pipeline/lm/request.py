"""What may be asked of a local language model beyond messages in, text out. Importing this is cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

from pipeline.errors import InvalidRequestError
from pipeline.lm.spans import Place
from pipeline.seams import LanguageModel, Message, Sampling, TextDelta

Decoding = Literal["auto", "plain", "speculative"]
DrafterName = Literal["lookup", "model", "mixture"]

MOST_DRAFT_TOKENS = 16
"""Longest draft of one round: more are hardly ever all accepted, and verifying them costs."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """Whether and how an answer is drafted before the model verifies it (RAPID, Chen et al. 2025).

    With ``eta`` and ``interpolation`` 0 the answer is distributed exactly as in plain decoding. Above 0 the
    drafter guides: the model's distribution is drawn towards the drafter's
    (:func:`pipeline.lm.verification.guided`), or the two are interpolated
    (:func:`pipeline.lm.verification.interpolated`). That is **not lossless**, and the drafter then runs at
    every token, whatever it costs.
    """

    decoding: Decoding = "auto"
    """`plain` never drafts, `speculative` always does, `auto` does while measured costs predict a gain."""
    drafter: DrafterName = "mixture"
    """`lookup` copies from what was retrieved and written, `model` lets a language model write that has read
    only the retrieved passages, `mixture` copies where it can and lets the model write elsewhere."""
    draft_tokens: int | None = None
    """Tokens of a draft, at most 16; null adapts the length to what is accepted."""
    eta: float = 0.0
    """How strongly the drafter's distribution draws the model's towards it: 0 is lossless, more is not."""
    alpha: float = 0.1
    """Tokens that the drafter gives less than this share of its likeliest token's probability are not
    drawn."""
    interpolation: float = 0.0
    """Largest share of the drafter's distribution in that which tokens are drawn from, 0 (lossless) to 1; it
    has half of it where it is as certain as the model, and more where it is more certain."""

    @property
    def is_guided(self) -> bool:
        """Whether the drafter changes what is written."""
        return self.eta > 0 or self.interpolation > 0

    @property
    def is_demanded(self) -> bool:
        """Whether plain decoding would not be what was asked for."""
        return self.decoding == "speculative" or (self.decoding == "auto" and self.is_guided)

    def check(self, asked: Mapping[str, float | None] | None = None) -> None:
        """Raise InvalidRequestError for a value that makes no sense, naming it.

        Also for guidance that a request ``asked`` for itself, by name, where nothing will be drafted.
        """
        rules = (
            ("decoding", self.decoding, self.decoding in get_args(Decoding), _one_of(Decoding)),
            ("drafter", self.drafter, self.drafter in get_args(DrafterName), _one_of(DrafterName)),
            (
                "draft_tokens",
                self.draft_tokens,
                self.draft_tokens is None or 1 <= self.draft_tokens <= MOST_DRAFT_TOKENS,
                f"1 to {MOST_DRAFT_TOKENS}, or none to adapt",
            ),
            ("eta", self.eta, 0 <= self.eta < float("inf"), "0 (lossless) or more"),
            ("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1"),
            ("interpolation", self.interpolation, 0 <= self.interpolation <= 1, "between 0 (lossless) and 1"),
        )
        for name, value, is_right, rule in rules:
            if not is_right:
                raise InvalidRequestError(f"{name} is {value!r}.", remedy=f"It must be {rule}.")
        if self.decoding == "plain":
            for name, value in (asked or {}).items():
                if value:
                    told = "nothing would be drawn to the passages"
                    raise InvalidRequestError(
                        f"{name} is {value} where decoding is 'plain': {told}.",
                        remedy=f"Ask for decoding 'auto' or 'speculative' too, or for {name} 0.",
                    )
            return
        if self.eta and self.interpolation:
            raise InvalidRequestError(
                f"eta is {self.eta} and interpolation {self.interpolation}: the drafter guides in one way.",
                remedy="Set one of them to 0.",
            )
        if self.is_guided and self.drafter == "lookup":
            name, value = ("eta", self.eta) if self.eta else ("interpolation", self.interpolation)
            raise InvalidRequestError(
                f"{name} is {value} with the drafter 'lookup', which has no distribution of its own.",
                remedy=f"Use the drafter 'model' or 'mixture', or {name} 0.",
            )


PLAIN = Speculation("plain")


@dataclass(frozen=True, slots=True)
class Weighed:
    """Where passages stand in the messages, and the share of its attention to all of them that the answer
    is to pay to each (:mod:`pipeline.lm.reweigh`)."""

    places: tuple[Place, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Biased:
    """Where passages stand in the messages, and what is added to the logits of the answer's attention to each
    (:mod:`pipeline.lm.attention_bias`)."""

    places: tuple[Place, ...]
    biases: tuple[float, ...]


Moved = Weighed | Biased
"""How an answer's attention to passages is moved."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to be generated.

    ``draft_messages`` are the same question over the retrieved passages alone, for the drafter; without them
    it reads what the model reads; words are copied from there too. ``tenant`` keeps the KV states of
    different users apart; without ``reuse`` every token is read anew. ``context_strength`` above 0 decodes
    context-aware (:mod:`pipeline.lm.contrast`): away from what the model would say to ``bare_messages``, the
    question without passages; nothing is then drafted. ``moved`` moves attention between passages, which
    cannot be had together with that.
    """

    messages: Sequence[Message]
    sampling: Sampling = field(default_factory=Sampling)
    speculation: Speculation = PLAIN
    draft_messages: Sequence[Message] = ()
    tenant: str = "default"
    cancelled: Callable[[], bool] = field(default=lambda: False)
    context_strength: float = 0.0
    bare_messages: Sequence[Message] = ()
    reuse: bool = True
    moved: Moved | None = None


@runtime_checkable
class GeneratingModel(LanguageModel, Protocol):
    """A language model that takes whole requests."""

    def generate(self, request: Generation) -> Iterator[TextDelta]:
        """As ``stream``; the last delta's ``usage`` tells how the answer was decoded."""
        ...


def _one_of(literal: object) -> str:
    return f"one of {', '.join(get_args(literal))}"
