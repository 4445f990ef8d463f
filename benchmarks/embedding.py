"""The table of docs/embedding.md: methods by lengths and sets, dense only and hybrid, with intervals.

Each row is one embedder. Passkeys and needles are ranked by document among ``--candidates``, dense only;
QMSum (training meetings, summary queries) by document, dense only and with words; the other sets by
document or by the share of answer spans inside 1,000 tokens. ``turns`` is the precision of the best five
units inside a meeting for questions whose answering turns are known, ``answers`` the same searched with the
reference answers. Each row is also compared with the
first, question by question. Results are saved after every row.

    python -m benchmarks.embedding --data DIR --out table.json --rows native blend --documents 20
    python -m benchmarks.embedding --table table.json >> docs/embedding.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embedding_scores import Cut, Index, cut
from benchmarks.embedding_sets import TURNS, Task, from_folder, hidden, meeting_turns, rows
from benchmarks.report import heading, interval
from embedders import centred, late_chunking, whitened
from embedders._fitted import Statistics, Vectors
from pipeline.chunk import ChunkConfig
from pipeline.errors import LongleafError
from pipeline.fuse import Fusion
from pipeline.retrieval_config import RetrievalConfig
from pipeline.seams import Embedder

_NO_TITLES = {"passage_title": 0.0, "unit_title": 0.0}  # rows compare methods of reading texts
LATE = {"passage_late": 1.0, "unit_late": 1.0, **_NO_TITLES}
OWN = {"passage_late": 0.0, "unit_late": 0.0, **_NO_TITLES}
DEFAULT_CHUNKING = ChunkConfig()
LANGUAGES = ("en", "de", "es", "ru", "ar", "zh", "hi", "el", "th", "tr", "vi", "ro")


@dataclass(frozen=True)
class Row:
    """An embedder: the model's options, the weight of late vectors (of units another, if said), directions taken
    away (None: not even centred) or the exponent of whitening, in how many pieces a query is searched, how documents
    are cut, what units weigh, and the temperature of a soft maximum of unit and passage (None: their mean)."""

    options: dict[str, Any] = field(default_factory=dict)
    late: float = 0.5
    directions: int | None = None
    whitening: float | None = None
    parts: int = 16
    chunking: ChunkConfig = DEFAULT_CHUNKING
    unit: float = 0.5
    soft: float | None = None
    unit_late: float | None = None

    def fusion(self, dense: float) -> Fusion:
        """As the default search weighs it, with this much meaning against words."""
        usual = RetrievalConfig(dense_weight=dense, unit_weight=self.unit).as_fusion()
        return usual if self.soft is None else replace(usual, join="soft_max", join_temperature=self.soft)

    def fitted(self, units: Vectors) -> Statistics | None:
        """What its vectors lose of what these have in common."""
        if self.whitening is not None:
            return whitened.whitening(units, self.whitening)
        return None if self.directions is None else centred.common(units, self.directions)


ROWS: dict[str, Row] = {
    "naive": Row(late=0),
    "late": Row(late=1),
    "blend": Row(),
    "blend 0.25": Row(late=0.25),
    "blend 0.75": Row(late=0.75),
    "query whole": Row(parts=1),
    "centred": Row(directions=0),
    "centred, 4 out": Row(directions=4),
    "centred, 16 out": Row(directions=16),
    "naive, centred, 16 out": Row(late=0, directions=16),
    "whitened": Row(whitening=0.5),
    "sentences": Row(chunking=ChunkConfig(unit_min_tokens=4)),
    "sentences, naive": Row(late=0, chunking=ChunkConfig(unit_min_tokens=4)),
    "sentences, naive, units alone": Row(late=0, chunking=ChunkConfig(unit_min_tokens=4), unit=1),
    "sentences, naive, units alone, centred": Row(
        late=0, directions=16, chunking=ChunkConfig(unit_min_tokens=4), unit=1
    ),
    "sentences, 0.25": Row(unit_late=0.25, chunking=ChunkConfig(unit_min_tokens=4)),
    "sentences, 0.25, units alone": Row(unit_late=0.25, chunking=ChunkConfig(unit_min_tokens=4), unit=1),
    "sentences, 0.25, soft": Row(unit_late=0.25, chunking=ChunkConfig(unit_min_tokens=4), soft=0.1),
    "sentences, 0.25, soft, whitened": Row(
        unit_late=0.25, chunking=ChunkConfig(unit_min_tokens=4), soft=0.1, whitening=0.5
    ),
    "temperature 0.8": Row({"late_temperature": 0.8}),
    "temperature 0.6": Row({"late_temperature": 0.6}),
    "pi 2": Row({"positions": "pi:2"}),
    "pi 4": Row({"positions": "pi:4"}),
    "grouped 2": Row({"positions": "grouped:2"}),
    "recurrent 2": Row({"positions": "recurrent:2"}),
    "rotary native": Row({"rotary": True}),
    "rotary ntk 4": Row({"rotary": True, "positions": "ntk:4"}),
    "rotary yarn 4": Row({"rotary": True, "positions": "yarn:4"}),
    "rotary self_extend 4": Row({"rotary": True, "positions": "self_extend:4:128"}),
}


class Passes:
    """The late and the own pass of every model setting, made once for all rows that mix them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._embedders: dict[str, late_chunking.LateChunkingEmbedder] = {}
        self._made: dict[tuple[str, ChunkConfig], Index] = {}

    def embedder(self, row: Row, weights: dict[str, float]) -> late_chunking.LateChunkingEmbedder:
        """The row's model with these weights. Raises what its options are refused with."""
        options = {**row.options, **weights}
        name = json.dumps(options, sort_keys=True)
        if name not in self._embedders:
            if options.pop("rotary", False):
                options["model"] = str(self._given.rotary)
            device, threads = self._given.device, self._given.threads
            config = late_chunking.Config(device=device, dtype=self._given.dtype, threads=threads, **options)
            self._embedders[name] = late_chunking.build(config)
        return self._embedders[name]

    def forget(self) -> None:
        """Another task's documents come."""
        self._made = {}

    def index(self, row: Row, made: Cut) -> Index:
        """The row's vectors of a cut: ``w * late + (1 - w) * own`` as the embedder mixes them, centred or
        whitened as the embedders of these names do, from all of the task's units."""
        parts = []
        of_units = row.late if row.unit_late is None else row.unit_late
        for weights, *shares in ((LATE, row.late, of_units), (OWN, 1 - row.late, 1 - of_units)):
            if max(shares) > 0:
                embedder = self.embedder(row, weights)
                key = (str(embedder.fingerprint), row.chunking)
                if key not in self._made:
                    self._made[key] = Index(made, embedder)
                parts.append((*(np.float32(share) for share in shares), self._made[key]))
        found = [
            replace(
                vectors[0],
                passages=_mixed([w for w, _, _ in parts], [v.passages for v in vectors]),
                units=_mixed([w for _, w, _ in parts], [v.units for v in vectors]),
            )
            for vectors in zip(*(index.found for _, _, index in parts), strict=True)
        ]
        shared = row.fitted(np.concatenate([f.units for f in found]))
        if shared is None:
            return Index(made, parts[0][2].embedder, found)
        found = [
            replace(f, passages=shared.apply(f.passages, "x"), units=shared.apply(f.units, "x"))
            for f in found
        ]
        return Index(made, parts[0][2].embedder, found, lambda vectors: shared.apply(vectors, "x"))


def _mixed(weights: Sequence[np.float32], parts: Sequence[Any]) -> Any:
    mixed = np.sum([w * part for w, part in zip(weights, parts, strict=True)], axis=0)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def tasks(given: argparse.Namespace, embedder: Embedder) -> Iterator[Task]:
    """What is measured, in order; sizes by the arguments."""
    texts = [r["text"] for r in rows(given.data / given.haystack, "corpus")]
    haystack = " ".join(" ".join(texts).split())
    for tokens in given.lengths:
        count = max(4, min(given.candidates, given.most_tokens // tokens))
        yield from hidden(haystack, embedder.encode, tokens, count)
    for name in given.sets:
        if name in ("turns", "answers"):
            by_answer = name == "answers"
            yield meeting_turns(given.data / "qmsum", given.documents, given.questions, by_answer=by_answer)
        elif name == "xquad":
            for language in LANGUAGES:
                yield from_folder(given.data / name, given.documents, given.questions // 4, language)
        else:
            yield from_folder(given.data / name, given.documents, given.questions)


def measure(made: Cut, index: Index, row: Row) -> dict[str, list[float]]:
    """Values of the questions, by measure."""
    questions, parts = made.task.questions, row.parts
    index.prepare(questions, parts)
    if made.task.name.startswith(TURNS):
        index.prepare(questions, 1)
        return {"P@5": [index.precision(q) for q in questions]}
    found: dict[str, list[float]] = {}
    ways = {"dense": row.fusion(1.0)}
    if made.words is not None:
        ways["hybrid"] = row.fusion(RetrievalConfig().dense_weight)
    for way, weights in ways.items():
        each = [index.measure(q, weights, parts=parts) for q in questions]
        for name in sorted({name for scores in each for name in scores}):
            found[f"{name} {way}"] = [scores[name] for scores in each if name in scores]
    return found


def told(values: Sequence[float]) -> list[float]:
    """Mean, bounds and n."""
    return [*(round(v, 4) for v in interval(values)), len(values)]


def run(given: argparse.Namespace) -> None:
    """Measure every row, task by task, and save after each."""
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else "cpu",
        "arguments": {key: str(value) for key, value in vars(given).items()},
        "rows": {name: {} for name in given.rows},
    }
    passes = Passes(given)
    first = passes.embedder(ROWS[given.rows[0]], OWN)
    cuts: dict[ChunkConfig, Cut] = {}
    indexes: dict[str, Index] = {}
    firsts: dict[tuple[str, str], list[float]] = {}
    for task in tasks(given, first):
        began = time.perf_counter()
        words = not task.name.startswith(("passkey", "needle", TURNS))
        if any(made.task.documents != task.documents for made in cuts.values()):
            cuts, indexes = {}, {}
            passes.forget()  # else these are neighbours that share documents
        print(f"{task.name}: {len(task.documents)} documents, {len(task.questions)} questions", flush=True)
        for name in given.rows:
            chunking = ROWS[name].chunking
            if chunking not in cuts:
                cuts[chunking] = cut(task, first, words=words, chunking=chunking)
            made = Cut(task, cuts[chunking].documents, cuts[chunking].words)
            began = time.perf_counter()
            try:
                if name not in indexes:
                    indexes[name] = passes.index(ROWS[name], made)
            except LongleafError as error:
                report["rows"][name][task.name] = {"error": str(error)}
                continue
            index = indexes[name]
            index.cut = made
            found: dict[str, Any] = {}
            for kind, values in measure(made, index, ROWS[name]).items():
                found[kind] = told(values)
                base = firsts.setdefault((task.name, kind), values)
                if base is not values:  # the same questions in every row
                    found[f"{kind}, less {given.rows[0]}"] = told(np.subtract(values, base).tolist())
            report["rows"][name][task.name] = {**found, "windowing": index.windowing}
            print(f"  {name:18} {found}  {time.perf_counter() - began:.1f} s", flush=True)
            given.out.write_text(json.dumps(report, indent=1))


def table(file: Path) -> str:
    """The saved results as a table in Markdown, one line a measure, one column a row."""
    report = json.loads(file.read_text())
    names = list(report["rows"])
    lines = ["| set | measure | n | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names)]
    seen = dict.fromkeys((t, m) for row in report["rows"].values() for t in row for m in row[t])
    for task, measured in seen:
        if measured in ("windowing", "error"):
            continue
        cells, n = [], 0
        for name in names:
            value = report["rows"][name].get(task, {}).get(measured)
            cells.append("" if value is None else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]")
            n = n if value is None else int(value[3])
        lines.append(f"| {task} | {measured} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print a saved table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of sets in the uniform layout")
    parser.add_argument("--out", type=Path, default=Path("embedding.json"))
    parser.add_argument("--table", type=Path, help="print this saved report as Markdown and stop")
    parser.add_argument("--rows", nargs="+", default=["naive", "late", "blend"], choices=list(ROWS))
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 1024, 4096])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--most-tokens", type=int, default=4_000_000, help="of all candidates of one length")
    parser.add_argument("--sets", nargs="*", default=["qmsum", "turns", "covidqa", "chunking_eval", "xquad"])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--haystack", default="paul_graham_essays")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rotary", type=Path, help="folder of a rotary embedder, for the rows that need one")
    given = parser.parse_args()
    if given.table:
        print(table(given.table))
        return
    heading(
        f"rows {', '.join(given.rows)}; at most {given.documents} documents, {given.questions} questions a set"
    )
    run(given)


if __name__ == "__main__":
    main()
