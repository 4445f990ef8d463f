"""Passkey and needle retrieval by length, after LongEmbed (see :mod:`pipeline.evaluation.protocols`).

All candidates of one length go into one collection; a question is answered right if the first hit holds
the sentence (``first hit``), or if it is of the right document (``document``, as LongEmbed counts).

    python -m benchmarks.needles --lengths 256 1024 4096 --haystack FILE_OR_FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.build import open_longleaf
from api.settings import load_settings
from benchmarks.report import heading, shown
from pipeline.evaluation.dataset import EvaluationSet, load_set
from pipeline.evaluation.protocols import needles
from pipeline.ingest import Source
from pipeline.read import read
from pipeline.types import Query


def protocol_sets(
    haystack: Path, lengths: Sequence[int], candidates: int, settings: Any, seed: int = 0
) -> list[EvaluationSet]:
    """One set a length."""
    text = haystack_text(haystack)
    with (
        tempfile.TemporaryDirectory() as data,
        open_longleaf(settings.model_copy(update={"data": Path(data)})) as longleaf,
    ):
        encode = longleaf.embedder.encode
        return [needles(text, encode, n, candidates=candidates, seed=seed) for n in lengths]


def haystack_text(path: Path) -> str:
    """All of a file, a folder of files, or a set's documents as one running text."""
    if path.is_dir() and list(path.glob("corpus.jsonl*")):
        texts = [document.text for document in load_set(path, questions=False).documents]
    else:
        paths = [path] if path.is_file() else sorted(path.iterdir())
        texts = [read(each, name=each.name).text for each in paths]
    return " ".join(" ".join(text.split()) for text in texts)


def main() -> None:
    """Print one line a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--haystack", type=Path, default=Path("examples/winter_sports_in_switzerland.epub"))
    given = parser.parse_args()
    heading(f"{given.candidates} candidates a length, haystack {given.haystack.name}, seed {given.seed}")
    made = protocol_sets(given.haystack, given.lengths, given.candidates, load_settings({}), given.seed)
    for tokens, each in zip(given.lengths, made, strict=True):
        with tempfile.TemporaryDirectory() as data, open_longleaf(load_settings({"data": data})) as longleaf:
            sources = [Source(name=document.id, text=document.text) for document in each.documents]
            failed = [r for r in longleaf.ingestor.ingest(sources) if r.status == "failed"]
            if failed:
                raise SystemExit(f"{len(failed)} candidates failed, the first: {failed[0]}")
            right: dict[str, list[float]] = {}
            for question in each.questions:
                task = question.id.split("-")[0]
                top = longleaf.retriever.search(Query(question.text, top_k=1)).hits[0]
                [(document, spans)] = question.spans.items()
                held = top.document_id == document and all(top.start <= a and b <= top.end for a, b in spans)
                right.setdefault(f"{task}, first hit", []).append(float(held))
                right.setdefault(f"{task}, document", []).append(float(top.document_id == document))
            shown_values = "  ".join(f"{what} {shown(values)}" for what, values in right.items())
            print(f"{tokens:>6} tokens  {shown_values}", flush=True)


if __name__ == "__main__":
    main()
