"""Questions with a long context for the model and the best passages of it for a drafter, from sets in the
uniform layout: NaturalQuestions (gold among other passages), HotpotQA (ten paragraphs), QMSum (meetings),
CovidQA (articles; the sentence that answers is to be quoted)."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_bm25 import BM25Okapi

from pipeline.seams import Message

_ASK = "Answer the question from the passages, in as few words as possible."
_SUMMARISE = "Answer the question about the meeting in one or two sentences."
_QUOTE = "Quote the sentence of the passages that answers the question, word for word."
_SYSTEM = {"qmsum": _SUMMARISE, "covid": _QUOTE}


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """One file of a set."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@dataclass(frozen=True, slots=True)
class LongQuestion:
    """One question. ``passages`` are the whole context in order; ``best`` those for the drafter, best first;
    ``wrong`` others that do not answer."""

    task: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[str, ...]
    best: tuple[str, ...]
    wrong: tuple[str, ...]

    def messages(self, passages: Sequence[str]) -> list[Message]:
        """The question after these passages."""
        shown = "\n\n".join(f"[passage {n}]\n{text}\n[/passage]" for n, text in enumerate(passages, 1))
        return [
            Message("system", _SYSTEM.get(self.task, _ASK)),
            Message("user", f"{shown}\n\nQuestion: {self.question}"),
        ]


def questions(
    data: Path,
    task: str,
    count: int,
    tokens: Callable[[str], int],
    budget_tokens: int,
    draft_passages: int = 3,
) -> Iterator[LongQuestion]:
    """So many questions of a task with at most ``budget_tokens`` of passages each, the same ones always."""
    made = {"nq": _natural_questions, "hotpot": _hotpot, "qmsum": _qmsum, "covid": _covid}[task]
    for number, (question, answers, passages, others) in enumerate(made(data, budget_tokens, tokens)):
        if number == count:
            return
        order = _ranked(question, passages)
        best = tuple(passages[at] for at in order[:draft_passages])
        yield LongQuestion(task, question, answers, tuple(passages), best, tuple(others[:draft_passages]))


Raw = tuple[str, tuple[str, ...], list[str], list[str]]


def _natural_questions(data: Path, budget: int, tokens: Callable[[str], int]) -> Iterator[Raw]:
    folder = data / "nq_open_oracle"
    corpus = {row["id"]: row["text"] for row in rows(folder, "corpus")}
    gold = {row["query_id"]: row["doc_id"] for row in rows(folder, "qrels")}
    ids = sorted(corpus)
    for query in rows(folder, "queries"):
        chance = random.Random(query["id"])
        passages, used = [corpus[gold[query["id"]]]], tokens(corpus[gold[query["id"]]])
        while used < budget:
            text = corpus[chance.choice(ids)]
            used += tokens(text) + 12  # markers
            passages.append(text)
        del passages[max(1, len(passages) - 1) :]
        chance.shuffle(passages)
        others = [corpus[chance.choice(ids)] for _ in range(5)]
        yield query["text"], tuple(query["answers"]), passages, others


def _hotpot(data: Path, budget: int, tokens: Callable[[str], int]) -> Iterator[Raw]:
    folder = data / "hotpotqa_100"
    corpus = {row["id"]: f"{row['title']}: {row['text']}" for row in rows(folder, "corpus")}
    ids = sorted(corpus)
    for query in rows(folder, "queries"):
        chance = random.Random(query["id"])
        passages = [corpus[i] for i in query["context_docs"]]
        used = sum(tokens(text) + 12 for text in passages)
        while used < budget:
            passages.append(corpus[chance.choice(ids)])
            used += tokens(passages[-1]) + 12
        del passages[max(1, len(passages) - 1) :]
        chance.shuffle(passages)
        others = [corpus[chance.choice(ids)] for _ in range(5)]
        yield query["text"], tuple(query["answers"]), passages, others


def _qmsum(data: Path, budget: int, tokens: Callable[[str], int]) -> Iterator[Raw]:
    """The part of the meeting around the turns that answer, as parts of about 200 words."""
    folder = data / "qmsum"
    corpus = {row["id"]: row["text"] for row in rows(folder, "corpus")}
    spans = {row["query_id"]: (row["doc_id"], row.get("spans")) for row in rows(folder, "qrels")}
    meetings = sorted(corpus)
    for query in rows(folder, "queries")[::7]:
        document, answering = spans[query["id"]]
        if not answering:
            continue
        at = meetings.index(document)
        others = [corpus[meetings[n % len(meetings)]] for n in range(at + 1, at + 4)]
        middle = sum(answering[0]) // 2
        passages = _around(corpus[document], middle, others, budget, tokens)
        wrong = [text for _, text in _parts(others[0])[:5]]
        yield query["question"], (query["text"],), passages, wrong


def _covid(data: Path, budget: int, tokens: Callable[[str], int]) -> Iterator[Raw]:
    """The part of the article around the answer, as parts of about 200 words."""
    folder = data / "covidqa"
    corpus = {row["id"]: row["text"] for row in rows(folder, "corpus")}
    spans = {row["query_id"]: (row["doc_id"], row["spans"]) for row in rows(folder, "qrels")}
    articles = sorted(corpus)
    for query in rows(folder, "queries")[::29]:
        document, answering = spans[query["id"]]
        at = articles.index(document)
        others = [corpus[articles[n % len(articles)]] for n in range(at + 1, at + 9)]
        passages = _around(corpus[document], sum(answering[0]) // 2, others, budget, tokens)
        yield query["text"], tuple(query["answers"]), passages, [text for _, text in _parts(others[0])[:5]]


def _around(
    text: str, middle: int, others: Sequence[str], budget: int, tokens: Callable[[str], int]
) -> list[str]:
    """Parts of a text on both sides of a place, and of others after it where it is too short."""
    parts = _parts(text)
    centre = next((n for n, (start, part) in enumerate(parts) if start + len(part) > middle), 0)
    first = last = centre
    used = tokens(parts[centre][1])
    while used < budget and (first > 0 or last < len(parts) - 1):
        at = (
            first - 1
            if first > 0 and (centre - first <= last - centre or last == len(parts) - 1)
            else last + 1
        )
        used += tokens(parts[at][1]) + 12
        if used < budget:
            first, last = min(first, at), max(last, at)
    chosen = [part for _, part in parts[first : last + 1]]
    for part in (part for other in others for _, part in _parts(other)):
        used += tokens(part) + 12
        if used >= budget:
            break
        chosen.append(part)
    return chosen


def _parts(text: str, most_chars: int = 1000) -> list[tuple[int, str]]:
    """Lines put together up to a size, with where each part begins."""
    parts: list[tuple[int, str]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), most_chars):
            piece = line[start : start + most_chars]
            if parts and len(parts[-1][1]) + len(piece) <= most_chars:
                parts[-1] = (parts[-1][0], parts[-1][1] + piece)
            else:
                parts.append((at + start, piece))
        at += len(line)
    return parts


def _ranked(question: str, passages: Sequence[str]) -> list[int]:
    """Places of the passages, best first by BM25."""
    scores = BM25Okapi([_words(text) for text in passages]).get_scores(_words(question))
    return sorted(range(len(passages)), key=lambda at: -scores[at])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
