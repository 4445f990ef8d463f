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
MOST_FEW = 10
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


RECIPES = (
    Recipe(None),
    Recipe(0),
    *(Recipe(count) for count in HEAD_COUNTS),
    *(Recipe(count, ridge) for count in WEIGHED_COUNTS for ridge in RIDGES),
)
FEW_ALIKE = tuple(Recipe(count) for count in HEAD_COUNTS if count <= MOST_FEW)
"""For whoever pays for each head: cached contexts read the keys of every one."""


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


def choose(seen: Sequence[Observation], *, content_free: bool, recipes: Sequence[Recipe] = RECIPES) -> Choice:
    """The best of all heads, of a range of layers, of heads alike and of heads by weights, for each choice of
    tokens.

    Each recipe is fitted on three quarters of the questions and judged, by mean reciprocal rank, on the rest.
    """
    golds, folds = [one.gold for one in seen], _folds([one.group for one in seen])
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(_FOLDS)]
    best: tuple[float, _View, Recipe] | None = None
    held_out: list[Floats] = []
    for tokens in get_args(Tokens):
        view = _View(seen, tokens, content_free=content_free)
        orders = [view.order(inside) for inside, _ in parts]
        for recipe in view.distinct(recipes):
            scores: list[Floats] = [np.zeros(0, np.float32)] * len(seen)
            for (inside, outside), order in zip(parts, orders, strict=True):
                signal = view.fit(recipe, inside, order)
                for n in outside.tolist():
                    scores[n] = signal.of(view.paid[n], view.free[n])
            quality = float((1 / ranks(scores, golds)).mean())
            if best is None or quality > best[0] + 1e-9:
                best, held_out = (quality, view, recipe), scores
    assert best is not None
    quality, view, recipe = best
    every = np.arange(len(seen))
    signal = view.fit(recipe, every, view.order(every))
    weight = fusion_weight([one.retrieved for one in seen], held_out, golds)
    return Choice(signal, recall(held_out, golds), quality, tuple(held_out), weight)


def _folds(groups: Sequence[int]) -> NDArray[np.int64]:
    """Each question's part, by chance: what goes round with the questions, as the place of the gold passage
    may, must not go round with the parts."""
    kinds, at = np.unique(groups, return_inverse=True)
    return np.random.default_rng(0).permutation(len(kinds))[at] % _FOLDS


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


class _View:
    """What the chosen tokens of each question pay, and how a signal is fitted to some of the questions."""

    def __init__(self, seen: Sequence[Observation], tokens: Tokens, *, content_free: bool) -> None:
        self.tokens, self.content_free = tokens, content_free
        self.paid = [one.asked.mean(tokens) for one in seen]
        self.free = [one.free.mean(tokens) if content_free else None for one in seen]
        self.golds = [one.gold for one in seen]
        self.masses = [
            paid if free is None else paid - free for paid, free in zip(self.paid, self.free, strict=True)
        ]

    def distinct(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Without those that want more heads than there are and so come to the same."""
        layers, heads, _ = self.paid[0].shape
        most = layers * heads
        return list(dict.fromkeys(r._replace(heads=min(r.heads, most)) if r.heads else r for r in recipes))

    def order(self, inside: NDArray[np.int64]) -> NDArray[np.int64]:
        """Heads, counted through all layers, best first: by reciprocal rank of the gold passage, and where
        that is equal by how far it stands out."""
        quality = np.mean(
            [
                1.0 / (self.masses[n] >= self.masses[n][:, :, [self.golds[n]]]).sum(-1)
                + 1e-3 * standardised(self.masses[n])[:, :, self.golds[n]]
                for n in inside.tolist()
            ],
            axis=0,
        )
        return np.argsort(-quality, axis=None, kind="stable")

    def fit(self, recipe: Recipe, inside: NDArray[np.int64], order: NDArray[np.int64]) -> Signal:
        """The signal of a recipe."""
        if recipe.heads is None:
            return Signal(self.tokens, self.content_free)
        if not recipe.heads:
            layers = _best_layers(self.masses, self.golds, inside.tolist())
            return Signal(self.tokens, self.content_free, layers=layers)
        where = np.divmod(order[: recipe.heads], self.paid[0].shape[1])
        heads = tuple(zip(*(part.tolist() for part in where), strict=True))
        if recipe.ridge is None:
            return Signal(self.tokens, self.content_free, heads=heads)
        cast = [
            votes(self.paid[n][where], self.masses[n][where] if self.content_free else None)
            for n in inside.tolist()
        ]
        weights = head_weights.fit(np.stack(cast), [self.golds[n] for n in inside.tolist()], recipe.ridge)
        rounded = tuple(round(float(weight), _DIGITS) for weight in weights)
        return Signal(self.tokens, self.content_free, heads=heads, weights=rounded)


def _best_layers(masses: Sequence[Floats], golds: Sequence[int], inside: Sequence[int]) -> tuple[int, int]:
    layers = len(masses[0])
    step = max(1, layers // 10)
    by_layer = [masses[n].sum(1) for n in inside]
    of_inside = [golds[n] for n in inside]
    ranges = [(a, b) for a in range(0, layers, step) for b in range(a + step, layers + 1, step)]
    return max(ranges, key=lambda r: (1 / ranks([m[r[0] : r[1]].sum(0) for m in by_layer], of_inside)).mean())
