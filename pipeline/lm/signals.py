"""From the attention that tokens pay to passages to a score for each passage.

Attention sorting (Peysakhovich and Lerer 2023) sums what the last token pays, over all layers and heads.
Found in the middle (Hsieh et al. 2024) takes off what a document without content gets at the same place;
in-context re-ranking (Chen et al. 2024) takes off what the same passages get from a question without
content, and asks the question's own tokens. On a small model only some heads look for answers at all, so
a signal can be limited to layers or heads, which a calibration finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError

Tokens = Literal["last", "question", "all"]
Floats = NDArray[np.float32]

_LEAST_MASS = 1e-5  # attention below this is none

CONTENT_FREE = "N/A"
"""The question without content (Chen et al. 2024, section 3.2)."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Attention masses of one prompt: ``masses`` float32 (layers, H, T, passages), from the question's
    first token to the prompt's last; ``question_tokens`` of the T are the question's own."""

    masses: Floats
    question_tokens: int

    def mean(self, tokens: Tokens) -> Floats:
        """Mean mass over the chosen tokens, (layers, H, passages)."""
        rows = {"last": slice(-1, None), "question": slice(self.question_tokens), "all": slice(None)}
        chosen: Floats = self.masses[:, :, rows[tokens]].mean(2)
        return chosen


@dataclass(frozen=True, slots=True)
class Signal:
    """Whose attention counts. ``heads`` are (layer, head) pairs, or None for all heads of ``layers``
    ``[first, end)``, or of all layers. ``content_free``: less what a question without content gives.

    Chosen heads vote with z-scores over the passages, so that none outweighs the others; otherwise masses
    are added as published. With ``weights``, scores are a weighted sum of votes: for each head the z-scored
    logarithm of its mass, since attention to what it looks for is a multiple of what it pays to the rest; if
    content-free, after these also each head's z-scored mass less the content-free's.
    """

    tokens: Tokens = "last"
    content_free: bool = False
    layers: tuple[int, int] | None = None
    heads: tuple[tuple[int, int], ...] | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.tokens not in get_args(Tokens):
            raise ConfigurationError(
                f"There is no choice of tokens {self.tokens!r}.",
                remedy=f"Choose from: {', '.join(get_args(Tokens))}.",
            )
        if self.heads == ():
            raise ConfigurationError("No heads are chosen.", remedy="Name some, or leave heads out.")
        if not np.isfinite(self.weights or 0).all():
            raise ConfigurationError(
                "Not all weights of heads are numbers.", remedy="Calibrate the model again."
            )
        wanted = len(self.heads or ()) * (2 if self.content_free else 1)
        if self.weights is not None and len(self.weights) != wanted:
            raise ConfigurationError(
                f"{len(self.weights)} weights are given for {wanted} votes.",
                remedy="Give a weight for each vote of the heads, or none.",
            )

    def scores(self, asked: Looks, free: Looks | None = None) -> Floats:
        """One score a passage, higher is better. ``free`` is needed where the signal is content-free.

        Raises ConfigurationError for layers or heads that the model does not have.
        """
        if not self.content_free:
            return self.of(asked.mean(self.tokens), None)
        if free is None:
            raise ConfigurationError(
                "A content-free signal was given no content-free question.", remedy="Watch one."
            )
        return self.of(asked.mean(self.tokens), free.mean(self.tokens))

    def of(self, paid: Floats, free: Floats | None) -> Floats:
        """The scores from means over the tokens, (layers, H, passages); ``free``, if any, is taken off."""
        masses = paid if free is None else paid - free
        if self.heads is not None:
            self._check(masses)
            layers, heads = np.array(self.heads).T
            if self.weights is None:
                voted: Floats = standardised(masses[layers, heads]).mean(0)
                return voted
            cast = votes(paid[layers, heads], None if free is None else masses[layers, heads])
            weighed: Floats = np.asarray(self.weights, np.float32) @ cast
            return weighed
        first, end = self.layers or (0, len(masses))
        if not 0 <= first < end <= len(masses):
            raise ConfigurationError(
                f"Layers [{first}, {end}) are not those of the model, which has {len(masses)}.",
                remedy="Calibrate again for this model.",
            )
        added: Floats = masses[first:end].sum((0, 1))
        return added

    def _check(self, masses: Floats) -> None:
        layers, heads = masses.shape[:2]
        wrong = [pair for pair in self.heads or () if not (0 <= pair[0] < layers and 0 <= pair[1] < heads)]
        if wrong:
            raise ConfigurationError(
                f"The head {wrong[0]} is not in a model of {layers} layers and {heads} heads.",
                remedy="Calibrate again for this model.",
            )


def less_dummies(
    asked: Looks, dummies: Sequence[Looks], tokens_of: Sequence[int], dummy_tokens: int
) -> Floats:
    """Found in the middle as published: each passage's attention a token, from the last token and over all
    heads, less that of a dummy document in its place (Hsieh et al. 2024, equation 3).

    ``dummies[k]`` looked at the same prompt with passage ``k`` replaced by the dummy.
    """
    lengths = np.asarray(tokens_of, np.float32)
    passages = asked.mean("last").sum((0, 1)) / lengths
    places = np.array([dummy.mean("last").sum((0, 1))[k] for k, dummy in enumerate(dummies)], np.float32)
    calibrated: Floats = passages - places / dummy_tokens
    return calibrated


def votes(paid: Floats, left: Floats | None) -> Floats:
    """What weighed heads vote with: z-scores over the passages of the logarithms of what each pays, (H, P),
    and behind them of what is ``left`` when the content-free is taken off, if it is."""
    logs = standardised(np.log(np.maximum(paid, _LEAST_MASS)))
    return logs if left is None else np.concatenate([logs, standardised(left)])


def standardised(values: Floats) -> Floats:
    """Z-scores along the last axis; zeros where all values are equal."""
    spread = values.std(-1, keepdims=True)
    safe = np.where(spread > 1e-12, spread, 1.0)
    result: Floats = ((values - values.mean(-1, keepdims=True)) / safe).astype(np.float32)
    return result


def shares(scores: Floats, temperature: float) -> Floats:
    """A share for each passage, together 1: the softmax of the standardised scores over ``temperature``."""
    sharpened = standardised(scores) / temperature
    raised = np.exp(sharpened - sharpened.max())
    result: Floats = raised / raised.sum()
    return result


MOST_BIAS = 4.0
"""What attention to a passage is raised or lowered by at most, in nats: more would be all, or none."""


@dataclass(frozen=True, slots=True)
class Bias:
    """How much attention to a passage follows its score: ``raised``, and ``strength`` for each point by which
    it scores better than the mean, are added to the logits, in nats. Measured with scores that are cosines,
    or sums of cosines and shares of words."""

    strength: float = 5.0
    raised: float = 0.25

    def of(self, scores: Floats) -> tuple[float, ...]:
        """What is added for each passage, :data:`MOST_BIAS` up or down at most."""
        if not len(scores):
            return ()
        wanted = self.raised + self.strength * (scores - scores.mean())
        return tuple(round(float(bias), 6) for bias in wanted.clip(-MOST_BIAS, MOST_BIAS))


def fused(retrieved: Floats, attended: Floats, weight: float) -> Floats:
    """``(1 - weight) * z(retrieved) + weight * z(attended)``: the retriever's and the attention's scores on
    one scale. With weight 0 the order is the retriever's."""
    result: Floats = (1 - weight) * standardised(retrieved) + weight * standardised(attended)
    return result
