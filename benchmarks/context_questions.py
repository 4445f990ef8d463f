"""Questions with passages from the development sets, for benchmarks of how passages are read."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PASSAGE_CHARS = 900
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its reference answer, and (title, text) of the passages; ``gold`` are indices."""

    id: str
    question: str
    answer: str
    passages: tuple[tuple[str, str], ...]
    gold: tuple[int, ...]

    @property
    def retrieved(self) -> list[float]:
        """BM25 (k1 1.5, b .75) of each passage for the question, statistics over these passages."""
        documents = [_words(f"{title} {text}") for title, text in self.passages]
        usual = sum(map(len, documents)) / len(documents)
        holds = Counter(word for words in documents for word in set(words))
        scores = []
        for words in documents:
            counts, score = Counter(words), 0.0
            for word in set(_words(self.question)):
                idf = math.log(1 + (len(documents) - holds[word] + 0.5) / (holds[word] + 0.5))
                tf = counts[word]
                score += idf * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * len(words) / usual))
            scores.append(score)
        return scores


def questions(data: Path, name: str, limit: int, seed: int = 0) -> list[Asked]:
    """``nq10`` and ``nq20``: the gold passage in the middle of random others; ``hotpot``: the ten
    paragraphs that come with the question; ``covid``: ten passages of the article itself."""
    makers = {"nq10": _natural, "nq20": _natural, "hotpot": _hotpot, "covid": _covid}
    rng = random.Random(f"{name} {seed}")
    made = makers[name](data, rng, 20 if name == "nq20" else 10)
    return [asked for asked, _ in zip(made, range(limit), strict=False)]


def _natural(data: Path, rng: random.Random, count: int) -> Iterator[Asked]:
    folder = data / "nq_open_oracle"
    corpus = {row["id"]: row for row in _rows(folder / "corpus")}
    gold_of = {row["query_id"]: row["doc_id"] for row in _rows(folder / "qrels")}
    asked = [row for row in _rows(folder / "queries") if row["id"] in gold_of and row["answers"]]
    rng.shuffle(asked)
    ids = sorted(corpus)
    for row in asked:
        gold, middle = gold_of[row["id"]], count // 2 - 1
        others = rng.sample([i for i in rng.sample(ids, 3 * count) if i != gold], count - 1)
        chosen = [*others[:middle], gold, *others[middle:]]
        passages = tuple((corpus[i]["title"], corpus[i]["text"]) for i in chosen)
        yield Asked(row["id"], row["text"], row["answers"][0], passages, (middle,))


def _hotpot(data: Path, rng: random.Random, count: int) -> Iterator[Asked]:
    folder = data / "hotpotqa_100"
    corpus = {row["id"]: row for row in _rows(folder / "corpus")}
    gold_of: dict[str, set[str]] = {}
    for row in _rows(folder / "qrels"):
        gold_of.setdefault(row["query_id"], set()).add(row["doc_id"])
    for row in _rows(folder / "queries"):
        ids = row["context_docs"][:count]
        passages = tuple((corpus[i]["title"], corpus[i]["text"]) for i in ids)
        gold = tuple(place for place, i in enumerate(ids) if i in gold_of[row["id"]])
        yield Asked(row["id"], row["text"], row["answers"][0], passages, gold)


def _covid(data: Path, rng: random.Random, count: int) -> Iterator[Asked]:
    folder = data / "covidqa"
    corpus = {row["id"]: row for row in _rows(folder / "corpus")}
    spans = {row["query_id"]: row["spans"] for row in _rows(folder / "qrels") if row.get("spans")}
    asked = [row for row in _rows(folder / "queries") if row["id"] in spans]
    rng.shuffle(asked)
    for row in asked:
        article, (start, end) = corpus[row["source_doc"]], spans[row["id"]][0]
        pieces = list(_pieces(article["text"]))
        holding = [i for i, (a, b) in enumerate(pieces) if a <= start and end <= b]
        if not holding or len(pieces) < count or len(row["answers"][0]) > 200:
            continue
        others = rng.sample([i for i in range(len(pieces)) if i != holding[0]], count - 1)
        chosen = [*others[: count // 2 - 1], holding[0], *others[count // 2 - 1 :]]
        passages = tuple((article["title"], article["text"][a:b]) for a, b in (pieces[i] for i in chosen))
        yield Asked(row["id"], row["text"], row["answers"][0], passages, (count // 2 - 1,))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Spans of about ``_PASSAGE_CHARS`` that end between sentences where they can."""
    start = 0
    while start < len(text):
        end = min(start + _PASSAGE_CHARS, len(text))
        stop = text.rfind(". ", start + _PASSAGE_CHARS // 2, end)
        end = stop + 2 if stop > 0 and end < len(text) else end
        yield start, end
        start = end


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path.with_suffix(".jsonl.gz"), "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _words(text: str) -> Sequence[str]:
    return _WORD.findall(text.lower())
