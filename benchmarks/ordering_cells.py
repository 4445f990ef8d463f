"""Questions with one gold passage among distractors, from NaturalQuestions and HotpotQA.

    python -m benchmarks.ordering_cells --data DIR --out cells.json

Questions used for calibration and for evaluation are different ones with different gold passages. Random
distractors are drawn from the other passages, hard ones are the nearest to the question by MiniLM; none
contains an accepted answer. The retriever's scores are MiniLM cosines; BM25 is that of rank_bm25 over all
passages of the set.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from rank_bm25 import BM25Okapi

from benchmarks.ordering_trials import contains, trial
from embedders import sentence_transformer
from pipeline import evidence
from pipeline.evidence import Reader
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.similarity import calibrate

EVALUATION = 100
CALIBRATION = 96
LONG = 50


def main() -> None:
    """Write the cells."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluation", type=int, default=EVALUATION)
    parser.add_argument("--calibration", type=int, default=CALIBRATION)
    arguments = parser.parse_args()
    sets = natural_questions(arguments.data / "nq_open_oracle", arguments.evaluation, arguments.calibration)
    sets["hotpot"] = hotpot(arguments.data / "hotpotqa_100", arguments.evaluation)
    for name in ("random10", "hard10", "hotpot"):
        for one in sets[name]:
            add_sentences(one)
    arguments.out.write_text(json.dumps(sets), "utf-8")
    print({name: len(trials) for name, trials in sets.items()})


def natural_questions(folder: Path, evaluation: int, calibration: int) -> dict[str, list[dict[str, Any]]]:
    """Cells of 10 and 20 passages, and those to calibrate on (half random, half hard)."""
    passages, questions, gold_of = read(folder)
    texts = [f"{passage['title']}. {passage['text']}" for passage in passages]
    at = {passage["id"]: n for n, passage in enumerate(passages)}
    dense = np.asarray(embedded([q["text"] for q in questions]) @ embedded(texts).T)
    words = BM25Okapi([tokens(text) for text in texts])
    rng = random.Random(5)
    kept = []
    golds_seen = set()
    for n, question in enumerate(questions):
        gold = at[gold_of[question["id"]][0]]
        fits = any(contains(passages[gold]["text"], answer) for answer in question["answers"])
        if fits and gold not in golds_seen and len(passages[gold]["text"]) < 1200:
            golds_seen.add(gold)
            kept.append((n, gold))
    sets: dict[str, list[dict[str, Any]]] = {}

    def cells(chosen: list[tuple[int, int]], count: int, *, hard: bool) -> list[dict[str, Any]]:
        made = []
        for n, gold in chosen:
            answers = questions[n]["answers"]
            order = [int(m) for m in np.argsort(-dense[n])]
            pool = order if hard else rng.sample(order, len(order))
            others = []
            for m in pool:
                wrong = m != gold and not any(contains(texts[m], answer) for answer in answers)
                if wrong and len(passages[m]["text"]) < 1200:
                    others.append(m)
                if len(others) == count - 1:
                    break
            rng.shuffle(others)
            chosen_passages = [gold, *others]
            bm25 = words.get_scores(tokens(questions[n]["text"]))
            made.append(cell(questions[n], [passages[m] for m in chosen_passages], [0],
                             dense[n][chosen_passages], bm25[chosen_passages]))  # fmt: skip
        return made

    test, train = kept[:evaluation], kept[-calibration:]
    sets["random10"] = cells(test, 10, hard=False)
    sets["hard10"] = cells(test, 10, hard=True)
    sets["random20"] = cells(test[:LONG], 20, hard=False)
    sets["hard20"] = cells(test[:LONG], 20, hard=True)
    sets["calibration"] = cells(train[::2], 10, hard=False) + cells(train[1::2], 10, hard=True)
    return sets


def hotpot(folder: Path, count: int) -> list[dict[str, Any]]:
    """The ten paragraphs given with each question, in their order; two of them support the answer."""
    passages, questions, gold_of = read(folder)
    by_id = {passage["id"]: passage for passage in passages}
    made = []
    for question in questions[:count]:
        given = [by_id[each] for each in question["context_docs"] if each in by_id]
        golds = [n for n, passage in enumerate(given) if passage["id"] in gold_of[question["id"]]]
        texts = [f"{passage['title']}. {passage['text']}" for passage in given]
        if len(golds) != 2 or len(given) < 5:
            continue
        cosines = (embedded([question["text"]]) @ embedded(texts).T)[0]
        bm25 = BM25Okapi([tokens(text) for text in texts]).get_scores(tokens(question["text"]))
        made.append(cell(question, given, golds, cosines, bm25))
    return made


def cell(question: Any, passages: Any, golds: list[int], dense: Any, bm25: Any) -> dict[str, Any]:
    """One question with its passages, as JSON."""
    return {
        "question": question["text"],
        "answers": question["answers"],
        "passages": [{key: p[key] for key in ("id", "title", "text")} for p in passages],
        "golds": golds,
        "dense": [round(float(x), 5) for x in dense],
        "bm25": [round(float(x), 4) for x in bm25],
    }


def add_sentences(cell: dict[str, Any]) -> None:
    """The score of every sentence of the passages for the question, as answers rank them."""
    terms = Analyser(LexicalConfig()).terms
    reader = Reader(calibrate(_CACHED), terms)
    gathered = evidence.gather(trial(cell).passages, reader)
    ranking = evidence.rank(cell["question"], gathered, reader)
    cell["sentences"] = [
        [
            gathered.sentences[n].hit.chunk_id,
            gathered.sentences[n].start,
            gathered.sentences[n].end,
            round(score, 3),
        ]
        for n, score in zip(ranking.order, ranking.scores, strict=True)
    ]


class _Cached:
    """Embeds every sentence once: passages are distractors of many questions."""

    known: ClassVar[dict[str, Any]] = {}

    def embed_queries(self, texts: list[str]) -> Any:
        new = list(dict.fromkeys(text for text in texts if text not in self.known))
        if new:
            self.known.update(zip(new, embedded(new), strict=True))
        return SimpleNamespace(vectors=np.stack([self.known[text] for text in texts]))


_CACHED: Any = _Cached()


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, list[str]]]:
    """Passages, questions, and the gold passages of each question."""
    corpus, queries, qrels = (_lines(folder / f"{name}.jsonl.gz") for name in ("corpus", "queries", "qrels"))
    golds: dict[str, list[str]] = {}
    for line in qrels:
        golds.setdefault(line["query_id"], []).append(line["doc_id"])
    return corpus, queries, golds


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


_EMBEDDER: Any = None


def embedded(texts: list[str]) -> Any:
    """Unit vectors (n, dim) by MiniLM, which has no prompts: questions and passages alike."""
    global _EMBEDDER  # noqa: PLW0603 - the model is loaded once
    _EMBEDDER = _EMBEDDER or sentence_transformer.build(sentence_transformer.Config())
    return np.asarray(_EMBEDDER.embed_queries(texts).vectors, np.float32)


def tokens(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"\w+", text.lower())


if __name__ == "__main__":
    main()
