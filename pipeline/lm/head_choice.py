"""Which layers and heads look for answers, chosen on some questions and judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.lm import head_weights
from pipeline.lm.signals import Floats, Looks, Signal, Tokens, fused, standardised, votes

HEAD_COUNTS = (1, 3, 5, 10, 20, 40)
WEIGHED_COUNTS = (20, 50, 100, 300)
RIDGES = (0.03, 0.1, 0.3)
_WEIGHTS = np.linspace(0.05, 0.95, 19)
_SHARPNESS = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 8], np.float64)
_FOLDS = 4
_DIGITS = 4  # of a weight, as it is kept


@dataclass(frozen=True, slots=True)
class Observation:
    """One question's looks at passages of which the one at ``gold`` holds the answer; ``retrieved`` are the
    retriever's scores of the passages; ``group`` keeps what shares a question in one fold."""

    asked: Looks
    free: Looks
    gold: int
    retrieved: Floats
    group: int


class Recipe(NamedTuple):
    """How a signal is fitted: all heads (``heads`` None), a range of layers (0), or so many best heads,
    which vote alike or, with a ``ridge``, by weights."""

    heads: int | None
    ridge: float | None = None


_RECIPES = (
    Recipe(None),
    Recipe(0),
    *(Recipe(count) for count in HEAD_COUNTS),
    *(Recipe(count, ridge) for count in WEIGHED_COUNTS for ridge in RIDGES),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A signal, refitted on everything, and how it did on questions it was not chosen on.

    ``scores`` are those held-out scores for each observation; ``weight`` is the fusion weight.
    """

    signal: Signal
    recall: float
    reciprocal_rank: float
    scores: tuple[Floats, ...]
    weight: float


def ranks(scores: Sequence[Floats], golds: Sequence[int]) -> NDArray[np.int64]:
    """The rank of each gold passage, 1 for the best; equal scores count against it."""
    return np.array([int((each >= each[gold]).sum()) for each, gold in zip(scores, golds, strict=True)])


def recall(scores: Sequence[Floats], golds: Sequence[int]) -> float:
    """R@1: the share of questions whose gold passage comes first."""
    return float((ranks(scores, golds) == 1).mean())


def choose(seen: Sequence[Observation], *, content_free: bool) -> Choice:
    """The best of all heads, of a range of layers, of heads alike and of heads by weights, for each choice of
    tokens.

    Each recipe is fitted on three quarters of the questions and judged, by mean reciprocal rank, on the rest.
    """
    golds = [one.gold for one in seen]
    best: tuple[float, Tokens, Recipe] | None = None
    held_out: list[Floats] = []
    for tokens in get_args(Tokens):
        masses = [_masses(one, tokens, content_free=content_free) for one in seen]
        for recipe in _RECIPES:
            scores: list[Floats] = [np.zeros(0, np.float32)] * len(seen)
            for fold in range(_FOLDS):
                inside = [n for n, one in enumerate(seen) if one.group % _FOLDS != fold]
                signal = _fit(seen, masses, inside, tokens, recipe, content_free=content_free)
                for n, one in enumerate(seen):
                    if one.group % _FOLDS == fold:
                        scores[n] = signal.scores(one.asked, one.free)
            quality = float((1 / ranks(scores, golds)).mean())
            if best is None or quality > best[0] + 1e-9:
                best, held_out = (quality, tokens, recipe), scores
    assert best is not None
    quality, tokens, recipe = best
    masses = [_masses(one, tokens, content_free=content_free) for one in seen]
    signal = _fit(seen, masses, range(len(seen)), tokens, recipe, content_free=content_free)
    weight = fusion_weight([one.retrieved for one in seen], held_out, golds)
    return Choice(signal, recall(held_out, golds), quality, tuple(held_out), weight)


def fusion_weight(retrieved: Sequence[Floats], attended: Sequence[Floats], golds: Sequence[int]) -> float:
    """The weight of the attention's scores under which the gold passages are likeliest.

    Likelihood is that of a softmax over the fused scores, at its best sharpness. Only weights that do not
    lower R@1 below the retriever's count; 0 if there is none.
    """
    floor = recall(retrieved, golds)
    best_weight, best_loss = 0.0, np.inf
    for weight in _WEIGHTS:
        both = [fused(r, a, float(weight)) for r, a in zip(retrieved, attended, strict=True)]
        if recall(both, golds) < floor:
            continue
        loss = min(
            float(np.mean([_surprise(one * sharp, gold) for one, gold in zip(both, golds, strict=True)]))
            for sharp in _SHARPNESS
        )
        if loss < best_loss:
            best_weight, best_loss = float(weight), loss
    return round(best_weight, 2)


def _surprise(scores: Floats, gold: int) -> float:
    top = float(scores.max())
    return top + float(np.log(np.exp(scores - top).sum())) - float(scores[gold])


def _masses(one: Observation, tokens: Tokens, *, content_free: bool) -> Floats:
    masses = one.asked.mean(tokens)
    return masses - one.free.mean(tokens) if content_free else masses


def _fit(
    seen: Sequence[Observation],
    masses: Sequence[Floats],
    inside: Sequence[int],
    tokens: Tokens,
    recipe: Recipe,
    *,
    content_free: bool,
) -> Signal:
    golds = [one.gold for one in seen]
    if recipe.heads is None:
        return Signal(tokens, content_free)
    if not recipe.heads:
        return Signal(tokens, content_free, layers=_best_layers(masses, golds, inside))
    # By reciprocal rank of the gold passage, and where that is equal by how far it stands out.
    quality = np.mean(
        [
            1.0 / (masses[n] >= masses[n][:, :, [golds[n]]]).sum(-1)
            + 1e-3 * standardised(masses[n])[:, :, golds[n]]
            for n in inside
        ],
        axis=0,
    )
    flat = np.argsort(-quality, axis=None, kind="stable")[: min(recipe.heads, quality.size)]
    heads = tuple((int(at // quality.shape[1]), int(at % quality.shape[1])) for at in flat)
    if recipe.ridge is None:
        return Signal(tokens, content_free, heads=heads)
    layers, numbers = np.array(heads).T
    cast = [
        votes(
            seen[n].asked.mean(tokens)[layers, numbers], masses[n][layers, numbers] if content_free else None
        )
        for n in inside
    ]
    weights = head_weights.fit(np.stack(cast), [golds[n] for n in inside], recipe.ridge)
    rounded = tuple(round(float(weight), _DIGITS) for weight in weights)
    return Signal(tokens, content_free, heads=heads, weights=rounded)


def _best_layers(masses: Sequence[Floats], golds: Sequence[int], inside: Sequence[int]) -> tuple[int, int]:
    layers = len(masses[0])
    step = max(1, layers // 10)
    by_layer = [masses[n].sum(1) for n in inside]
    of_inside = [golds[n] for n in inside]
    ranges = [(a, b) for a in range(0, layers, step) for b in range(a + step, layers + 1, step)]
    return max(ranges, key=lambda r: (1 / ranks([m[r[0] : r[1]].sum(0) for m in by_layer], of_inside)).mean())
