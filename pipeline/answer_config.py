"""What can be set about answers, for the service and for one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.compose import MOST_STRENGTH
from pipeline.errors import ConfigurationError
from pipeline.lm.context_options import ContextOptions
from pipeline.lm.request import Decoding, DrafterName
from pipeline.lm.signals import MOST_BIAS, Bias
from pipeline.ordering import Order, Reweigh, check

Mode = Literal["auto", "extractive", "composed"]
_MOST = {
    "attention_bias": 100.0,  # beyond, any difference of scores takes attention to its bounds
    "attention_raise": MOST_BIAS,
    "context_strength": MOST_STRENGTH,
    "found_threshold": 1,
}


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """How answers are made and checked."""

    mode: Mode = "auto"
    """`extractive` quotes; `composed` lets the model write, verified; `auto` does both."""
    trusted: bool = False
    """Whether the language model is strong: its answer leads in `auto`, and it may paraphrase."""
    max_quotes: int = 3
    """Most sentences quoted in one answer."""
    quote_margin: float = 1.1
    """A further quote may score this much less than the best (scale of the sentence ranking)."""
    found_threshold: float = 0.4
    """Below this likelihood that the passages answer, the answer is that the documents do not."""
    evidence_tokens: int = 4096
    """Tokens (of the embedder) of passages searched for quotes and support."""
    prompt_passages: int = 3
    """Most passages the language model reads; a small model is led astray by more."""
    prompt_tokens: int = 1024
    """Tokens of passages the language model reads."""
    max_tokens: int = 96
    """Most tokens the language model writes."""
    max_sentences: int = 3
    """Sentences after which the language model is stopped."""
    order: Order = "auto"
    """Order of passages in the prompt: `auto` (what the model's calibration found best), `score` (best
    first), `reverse` (best last), `edges` (best at both ends), `document`, or, after the model has looked
    at them, `attention_sorting` or `found_in_the_middle`."""
    reweigh: Reweigh = "auto"
    """How the model's attention to passages is moved while it writes. `bias` raises it for passages that the
    search scored above the mean of those in the prompt and lowers it for the others; `auto` does that where
    the model's calibration found that it helps. Shares of attention may also follow the scores alone:
    `score`, or after a look `attention_sorting` or `found_in_the_middle`. `off` leaves attention as it is."""
    attention_bias: float = Bias().strength
    """Strength of `bias`: what is added to the logits of attention to a passage, in nats, for each point by
    which the search scored it better than the mean of the passages in the prompt. Measured with scores of
    `retrieval.fusion` `convex`; rank fusion's are so close together that only the raise is left."""
    attention_raise: float = Bias().raised
    """What `bias` adds for all passages alike: attention that the rest of the prompt loses."""
    compress_tokens: int | None = None
    """Passages in the prompt are shortened to their best sentences within these tokens; null leaves them."""
    long_tokens: int = 0
    """Tokens that the language model reads around the passages, whole documents where they fit, while only a
    drafter reads the passages alone; 0 lets it read just the passages."""
    context_strength: float = 0.0
    """Context-aware decoding: how far the model is drawn to what the passages say; 0 is off."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigurationError(
                f"There is no answer mode {self.mode!r}.", remedy=f"Choose from: {', '.join(get_args(Mode))}."
            )
        for name in (
            "max_quotes",
            "evidence_tokens",
            "prompt_passages",
            "prompt_tokens",
            "max_tokens",
            "max_sentences",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"answer.{name} is {getattr(self, name)}.", remedy="Set 1 or more.")
        check(self.order)
        if self.reweigh not in get_args(Reweigh):
            raise ConfigurationError(
                f"answer.reweigh is {self.reweigh!r}.", remedy=f"Choose from: {', '.join(get_args(Reweigh))}."
            )
        if self.compress_tokens is not None and self.compress_tokens < 1:
            raise ConfigurationError(
                f"answer.compress_tokens is {self.compress_tokens}.", remedy="Set 1 or more, or leave it out."
            )
        if self.long_tokens < 0:
            raise ConfigurationError(f"answer.long_tokens is {self.long_tokens}.", remedy="Set 0 or more.")
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigurationError(
                    f"answer.{name} is {getattr(self, name)}.", remedy=f"Set it between 0 and {most}."
                )


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What one request asks for; None takes the configuration's value."""

    mode: Mode | None = None
    max_tokens: int | None = None
    order: Order | None = None
    reweigh: Reweigh | None = None
    compress_tokens: int | None = None
    context_strength: float | None = None
    context: ContextOptions | None = None
    long_tokens: int | None = None
    decoding: Decoding | None = None
    drafter: DrafterName | None = None
    draft_tokens: int | None = None
    eta: float | None = None
    interpolation: float | None = None


DEFAULTS = AnswerConfig()
NOTHING_ASKED = AnswerOptions()
