"""Questions with the passage that answers each: read from a file, or made up, for calibrating a model.

Made-up passages tell of things that do not exist, so that no model can answer without reading, and all of
them tell the same kinds of facts, so that only reading tells them apart.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidRequestError, NotFoundError
from pipeline.lm.calibrating import Trial
from pipeline.types import Hit

Scorer = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]
"""Scores (questions, passages) of a retriever, higher is better."""

_KEYS = ("question", "answer", "passage")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, a reference answer, and the passage that holds it."""

    question: str
    answer: str
    passage: str
    title: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a file of JSON lines with the keys question, answer, passage and, if there is one, title.

    Raises NotFoundError for a file that cannot be read and InvalidRequestError naming the first wrong line.
    """
    try:
        lines = path.read_text("utf-8").split("\n")  # JSON may hold what else breaks lines
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(
            f"The pairs in {path} cannot be read: {error}", remedy="Check the path."
        ) from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            given = {key: value[key] for key in (*_KEYS, *(["title"] if "title" in value else []))}
            wrong = [key for key, text in given.items() if not isinstance(text, str)]
            empty = [key for key in _KEYS if not str(given[key]).strip()]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wrong, empty, given = [f"{type(error).__name__}: {error}"], [], {}
        if wrong or empty:
            raise InvalidRequestError(
                f"Line {number} of {path} is no pair: {', '.join([*wrong, *empty])}.",
                remedy='Each line must be {"question": "...", "answer": "...", "passage": "..."}.',
            )
        pairs.append(Pair(**given))
    return pairs


def made_up(count: int, seed: int = 0) -> list[Pair]:
    """``count`` pairs, the same for the same seed, each about a thing of its own."""
    parts = json.loads((resources.files("pipeline.lm") / "made_up.json").read_text("utf-8"))
    kinds, questions = parts["kinds"], parts["questions"]
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    names = [first + last for first in parts["first"] for last in parts["last"]]
    rng.shuffle(names)
    pairs = []
    for n in range(count):
        kind, text = kinds[n % len(kinds)]
        question, answer = questions[n // len(kinds) % len(questions)]
        series = f" {n // len(names) + 1}" if n >= len(names) else ""
        thing = kind.format(name=names[n % len(names)] + series)
        facts = {
            "thing": thing,
            "Thing": thing[0].upper() + thing[1:],
            "year": str(rng.randrange(1780, 1990)),
            "person": f"{rng.choice(parts['people'])} {rng.choice(parts['families'])}",
            "number": str(rng.randrange(101, 990)),
            "goods": rng.choice(parts["goods"]),
            "colour": rng.choice(parts["colours"]),
        }
        pairs.append(Pair(question.format(**facts), answer.format(**facts), text.format(**facts)))
    return pairs


def trials(pairs: Sequence[Pair], scorer: Scorer, *, count: int, passages: int, seed: int = 0) -> list[Trial]:
    """``count`` questions, each with its passage and others that do not contain the answer: for every second
    question the nearest by the retriever, for the others any.

    Raises InvalidRequestError where there are too few pairs.
    """
    texts = list(dict.fromkeys(pair.passage for pair in pairs))
    titles = {pair.passage: pair.title for pair in pairs}
    if len(pairs) < count or len(texts) < passages:
        raise InvalidRequestError(
            f"{len(pairs)} pairs with {len(texts)} passages are too few for {count} questions with "
            f"{passages} passages each.",
            remedy="Give more pairs, or ask for fewer questions or passages.",
        )
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    chosen = rng.sample(list(pairs), count)
    scores = scorer([pair.question for pair in chosen], texts)
    made = []
    for n, pair in enumerate(chosen):
        others = [m for m, text in enumerate(texts) if text != pair.passage and not _says(text, pair.answer)]
        rng.shuffle(others)
        if n % 2:
            others.sort(key=lambda m: -scores[n, m])
        others = others[: passages - 1]
        rng.shuffle(others)
        if len(others) < passages - 1:
            raise InvalidRequestError(
                f"Too few passages lack the answer {pair.answer!r} to {pair.question!r}.",
                remedy="Give pairs with more different passages.",
            )
        gold = texts.index(pair.passage)
        hits = tuple(
            Hit(str(m), str(m), 1, titles[texts[m]], texts[m], 0, len(texts[m]), float(scores[n, m]))
            for m in (gold, *others)
        )
        made.append(Trial(pair.question, pair.answer, hits, 0))
    return made


def _says(text: str, answer: str) -> bool:
    return " ".join(answer.casefold().split()) in " ".join(text.casefold().split())
