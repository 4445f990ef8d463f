"""One switch of retrieval at a time against the defaults, on every set that has vectors.

python -m benchmarks.vectors DATA/qmsum DATA/covidqa ... --out VECTORS     (once; minutes)
python -m benchmarks.switches DATA --vectors VECTORS                       (minutes a set)

Evidence is exact, not that of candidate lists. Differences are paired, with 95 % intervals; bold where they
leave out 0. Span recall within 1,000 tokens where a set has spans, else nDCG@10 by document.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.fusion import Fusion, evaluate, fused, risen
from benchmarks.signals import Array, Choices, Set
from pipeline.evaluation.dataset import load_set
from pipeline.measure import difference
from pipeline.regularize import Regularization

CHOICES, FUSION = Choices(), Fusion()


class Switch(NamedTuple):
    """Everything that search does; without arguments as it is by default."""

    choices: Choices = CHOICES
    fusion: Fusion = FUSION
    regularization: Regularization = Regularization()


def words(**changed: object) -> Choices:
    """The defaults with another analyser."""
    return replace(CHOICES, lexical=replace(CHOICES.lexical, **changed))  # type: ignore[arg-type]


SWITCHES: Mapping[str, Switch] = {
    "defaults": Switch(),
    "no late chunking": Switch(replace(CHOICES, late=0.0)),
    "late chunking alone": Switch(replace(CHOICES, late=1.0)),
    "no titles in vectors": Switch(replace(CHOICES, passage_title=0.0, unit_title=0.0)),
    "passages of 64 tokens": Switch(replace(CHOICES, passage_tokens=64)),
    "passages of 192 tokens": Switch(replace(CHOICES, passage_tokens=192)),
    "passages of 256 tokens": Switch(replace(CHOICES, passage_tokens=256)),
    "words without context": Switch(words(context_weight=0.0)),
    "context 0.75": Switch(words(context_weight=0.75)),
    "no titles in words": Switch(words(titles=False)),
    "no stems": Switch(words(stems=False)),
    "no pairs of words": Switch(words(bigram_weight=0.0)),
    "pairs 0.15": Switch(words(bigram_weight=0.15)),
    "pairs 0.6": Switch(words(bigram_weight=0.6)),
    "k1 1.5": Switch(words(k1=1.5)),
    "k1 0.6": Switch(words(k1=0.6)),
    "b 0.6": Switch(words(b=0.6)),
    "b 0.9": Switch(words(b=0.9)),
    "units alone": Switch(fusion=replace(FUSION, unit=1.0)),
    "passages alone": Switch(fusion=replace(FUSION, unit=0.0)),
    "no whole documents": Switch(fusion=replace(FUSION, passage=1.0, usual_words=0)),
    "long documents not discounted": Switch(fusion=replace(FUSION, length_discount=0.0)),
    "questions of every length alike": Switch(fusion=replace(FUSION, usual_words=0)),
    "meaning 0.6": Switch(fusion=replace(FUSION, dense=0.6)),
    "meaning 0.7": Switch(fusion=replace(FUSION, dense=0.7)),
    "words alone": Switch(fusion=replace(FUSION, dense=0.0)),
    "meaning alone": Switch(fusion=replace(FUSION, dense=1.0)),
    "plain RRF": Switch(fusion=replace(FUSION, method="rrf")),
    "weighted RRF": Switch(fusion=replace(FUSION, method="weighted_rrf")),
    "distribution-based": Switch(fusion=replace(FUSION, method="distribution")),
    "roll-up: mean of best 3": Switch(replace(CHOICES, rollup="mean_top")),
    "roll-up: log-sum-exp": Switch(replace(CHOICES, rollup="logsumexp")),
    "scores not regularised": Switch(regularization=Regularization(share=0.0)),
    "mean direction removed": Switch(replace(CHOICES, removed=1)),
    "4 directions removed": Switch(replace(CHOICES, removed=4)),
}


def measured(data: Set) -> dict[str, Array]:
    """What each switch gives, one value a question."""
    found = {}
    for name, (choices, fusion, regularization) in SWITCHES.items():
        signals, cut = data.signals(choices), data.passages(choices.passage_tokens)
        scores = risen(fused(signals, fusion, cut["doc"]), data.stored(choices), cut["doc"], regularization)
        values = evaluate(data, signals, scores, cut)
        spans = not np.isnan(values["recall"]).all()
        found[name] = values["recall" if spans else "ndcg"]
    return found


def cell(values: Array, base: Array) -> str:
    """The paired difference."""
    keys = [str(n) for n in range(len(values)) if not np.isnan(values[n])]
    change = difference({k: float(values[int(k)]) for k in keys}, {k: float(base[int(k)]) for k in keys})
    text = f"{change.mean:+.3f}"
    mark = "**" if change.low > 0 or change.high < 0 else ""
    return f"{mark}{text}{mark} [{change.low:+.3f}, {change.high:+.3f}]"


def main() -> None:
    """A table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=150)
    given = parser.parse_args()
    heads, columns = [""], []
    for path in sorted(given.vectors.glob("*.npz")):
        with np.load(path) as file:
            count = len(file["titles"])
        found = load_set(given.data / path.stem)
        data = Set(found if count == len(found.documents) else found.sample(count, None), path)
        data.sample(given.questions)
        values = measured(data)
        base = values["defaults"]
        heads.append(f"{path.stem} n={int((~np.isnan(base)).sum())}")
        cells = [f"{np.nanmean(base):.3f}", *(cell(v, base) for n, v in values.items() if n != "defaults")]
        columns.append(cells)
        print(f"{path.stem} done", flush=True)
    print("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, *row in zip(SWITCHES, *columns, strict=True):
        print("| " + " | ".join([name, *row]) + " |")


if __name__ == "__main__":
    main()
