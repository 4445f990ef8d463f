"""Seconds until the first token: reading a context as usual, and attending cached passages of it."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.context_models import shaped
from pipeline.errors import ModelMemoryError
from pipeline.lm import contexts as cached
from pipeline.lm import model as lm
from pipeline.lm.context_options import ContextCalibration, ContextOptions, ContextsConfig
from pipeline.lm.contexts import Contexts, Passage
from pipeline.lm.kv_format import KvStates
from pipeline.lm.kv_identity import PassageKey
from pipeline.lm.reading import PREFILL_TOKENS
from pipeline.lm.sequence import Sequence as Read
from pipeline.records import VersionKey

PASSAGE_TOKENS = 256
QUESTION = "When does the agreement of the two parties about the northern building come to an end?"
ATTENDED = 16
_GB = 1e9


def run(options: argparse.Namespace) -> None:
    """All lengths in turn; print and save as they come."""
    model = shaped(options.model, options.device) if options.shape else lm.load(
        options.model, device=options.device, dtype=options.dtype, threads=options.threads
    )  # fmt: skip
    results: dict[str, Any] = {"model": dict(model.describe()), "lengths": [], "candidates": []}
    lengths = [int(n) for n in options.tokens.split(",") if n]
    many = [int(n) for n in options.candidates.split(",") if n]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        contexts = _contexts(model, max([*lengths, 1]), Path(folder))
        passages = _passages(max([*lengths, 1]))
        _warm_up(model, contexts, passages)
        for tokens in lengths:
            results["lengths"].append(_length(model, contexts, passages[: _count(tokens)], options))
            _save(results, options.out)
        results["store"] = contexts.store.stats()
        contexts.close()
    contexts, passages = _contexts(model, max([*many, 1]), None), _passages(max([*many, 1]))
    for tokens in many:
        row = _candidates(model, contexts, passages[: _count(tokens)], results, options)
        results["candidates"].append(row)
        _save(results, options.out)
    contexts.close()
    _save(results, options.out)
    print_tables(results)


def _length(
    model: lm.LocalModel, contexts: Contexts, passages: Sequence[Passage], options: argparse.Namespace
) -> dict[str, Any]:
    """One context length: as usual, warm, and cold where a disk keeps the states."""
    asked = cached.Asked(QUESTION, passages)
    began = time.perf_counter()
    found = _random_states(contexts, passages) if options.random_states else list(contexts.warm(passages))
    encoding = time.perf_counter() - began
    contexts.store.flush()
    row: dict[str, Any] = {
        "tokens": sum(passage.key.tokens for passage in passages),
        "passages": len(passages),
        "encoded": found.count("built"),
        "encoding_seconds": encoding,
        "bytes": sum(contexts.store.passage_bytes(passage.key.tokens) for passage in passages),
    }
    row["warm"] = _timed(lambda: _first_token(contexts, asked), options)
    chosen = cached.Asked(QUESTION, passages, ContextOptions(attended=4))
    row["warm, best 4"] = _timed(lambda: _first_token(contexts, chosen), options)
    if contexts.config.disk_bytes:
        row["cold"] = _timed(lambda: _first_token(contexts, asked), options, before=lambda: _chill(contexts))
        row["disk"] = _disk(contexts, asked)
    few = max(1, options.repeats // 3)  # it takes long, and varies little
    print(json.dumps(row), flush=True)
    row["sequential"] = _timed(lambda: _sequential(model, contexts, asked), options, repeats=few)
    print(json.dumps(row), flush=True)
    return row


def _candidates(
    model: lm.LocalModel,
    contexts: Contexts,
    passages: Sequence[Passage],
    results: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Many cached passages of which the model's heads choose some. What sequential reading would take is
    measured where the window allows, else extrapolated from a + b n + c n^2 through the lengths above."""
    asked = cached.Asked(QUESTION, passages, ContextOptions(attended=ATTENDED))
    row: dict[str, Any] = {
        "tokens": sum(passage.key.tokens for passage in passages),
        "passages": len(passages),
        "attended": ATTENDED,
    }
    began = time.perf_counter()
    if options.random_states:
        _random_states(contexts, passages)
    _first_token(contexts, asked)  # builds what is not there
    row["first_seconds"] = time.perf_counter() - began
    row["warm"] = _timed(lambda: _first_token(contexts, asked), options)
    if row["tokens"] + 300 <= model.window_tokens and time.monotonic() < options.until:
        try:
            row["sequential"] = _timed(lambda: _sequential(model, contexts, asked), options, repeats=1)
        except ModelMemoryError as error:
            row["sequential_failed"] = str(error)
    points = [(line["tokens"], line["sequential"]["median"]) for line in results["lengths"]]
    if len(points) >= 3:
        row["sequential_extrapolated"] = _extrapolated(points, row["tokens"])
    print(json.dumps(row), flush=True)
    return row


def _sequential(model: lm.LocalModel, contexts: Contexts, asked: cached.Asked) -> None:
    """The whole prompt in order. On a GPU in one pass: parts would waste it."""
    ids = contexts.sequential_ids(asked)
    size = len(ids) if model.network.device.type == "cuda" else PREFILL_TOKENS
    sequence = Read(model.engine, model.reader.new_cache(len(ids) + 1))
    for start in range(0, len(ids), size):
        logits = sequence.read(ids[start : start + size])
    int(logits[-1].argmax())


def _first_token(contexts: Contexts, asked: cached.Asked) -> None:
    with contexts.reading(asked, room_tokens=64) as reading:
        int(reading.logits[-1].argmax())


def _timed(
    work: Callable[[], None],
    options: argparse.Namespace,
    before: Callable[[], None] = lambda: None,
    repeats: int | None = None,
) -> dict[str, float]:
    """Wall seconds (median, least and most of some repeats) and the median of processor seconds, which says
    more where other processes run at the same time."""
    seconds: list[float] = []
    worked: list[float] = []
    for _ in range(repeats or options.repeats):
        before()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began, began_working = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        worked.append(time.process_time() - began_working)
        if time.monotonic() > options.until:
            break
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "processor": statistics.median(worked),
    }


def _chill(contexts: Contexts) -> None:
    """Forget memory, and let the system forget what it has cached of the files."""
    contexts.store.flush()
    contexts.store.memory.clear()
    for path in _files(contexts):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _disk(contexts: Contexts, asked: cached.Asked) -> dict[str, float]:
    """Bytes a second: the files of these passages read in one go, and read, verified and placed."""
    _chill(contexts)
    paths, began = _files(contexts), time.perf_counter()
    size = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while piece := os.read(descriptor, 8 * 2**20):
            size += len(piece)
        os.close(descriptor)
    plain = size / (time.perf_counter() - began)
    _chill(contexts)
    before = contexts.store.stats()["disk"]
    began = time.perf_counter()
    with contexts.held(asked.passages):
        seconds = time.perf_counter() - began
    after = contexts.store.stats()["disk"]
    return {"plain": plain, "verified": (after["read_bytes"] - before["read_bytes"]) / seconds}


def _files(contexts: Contexts) -> list[Path]:
    return sorted(contexts.folder.rglob("*.safetensors")) if contexts.folder else []


def _extrapolated(points: Sequence[tuple[int, float]], tokens: int) -> float:
    """Seconds at ``tokens`` by the parabola through the measured lengths (least squares)."""
    import numpy as np

    counts, seconds = np.array(points, float).T
    fit = np.polyfit(counts, seconds, 2, w=1 / seconds)
    return float(np.polyval(fit, tokens))


def _contexts(model: lm.LocalModel, tokens: int, folder: Path | None) -> Contexts:
    """With room in memory for so many tokens of passages and, with ``folder``, on disk."""
    layers = model.network.config.num_hidden_layers
    heads = tuple((layer, head) for layer, head in ((18, 6), (17, 3), (17, 4), (18, 7)) if layer < layers)
    calibration = ContextCalibration(
        model.name, str(model.describe()["revision"]), temperature=0.6, scale=1.0, heads=heads, weight=0.5
    )
    probe = Contexts(model, ContextsConfig(disk_bytes=0), calibration=calibration)
    needed = int(1.1 * probe.store.passage_bytes(tokens)) + 2**28
    config = ContextsConfig(memory_bytes=needed, disk_bytes=needed if folder else 0)
    return Contexts(model, config, folder, calibration)


def _passages(tokens: int) -> list[Passage]:
    """Passages of exactly ``PASSAGE_TOKENS`` random tokens: speed does not depend on what they say."""
    rng, made = random.Random(0), []
    owner = VersionKey("benchmark", "contexts", "speed", 1)
    for number in range(_count(tokens)):
        ids = tuple(rng.randrange(1000, 40_000) for _ in range(PASSAGE_TOKENS))
        made.append(Passage(PassageKey.of(owner, ids), ids, float(number % 7)))
    return made


def _random_states(contexts: Contexts, passages: Sequence[Passage]) -> list[str]:
    """Keep random states instead of encoding: what they are makes no difference to how fast they are read."""
    shape = contexts.store.shape
    size = (shape.layers, shape.heads, PASSAGE_TOKENS, shape.width)

    def build(_: int) -> KvStates:
        states = torch.randn(2, *size, dtype=shape.dtype, device=shape.device)
        return KvStates(states[0].contiguous(), states[1].contiguous())

    with contexts.store.hold([passage.key for passage in passages], contexts.origin, build) as held:
        return [one.found for one in held]


def _warm_up(model: lm.LocalModel, contexts: Contexts, passages: Sequence[Passage]) -> None:
    asked = cached.Asked(QUESTION, passages[:2])
    for _ in range(2):
        _first_token(contexts, asked)
        _sequential(model, contexts, asked)


def _count(tokens: int) -> int:
    return max(1, round(tokens / PASSAGE_TOKENS))


def _save(results: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(results, indent=1))


def print_tables(results: dict[str, Any]) -> None:
    """Seconds and ratios to sequential reading of the same run."""
    print(f"\n{results['model']}")
    for row in results["lengths"]:
        base = row["sequential"]["median"]
        told = [f"{row['tokens']:6d} tokens  sequential {base:8.3f} s"]
        for name in ("warm", "warm, best 4", "cold"):
            if name in row:
                seconds = row[name]["median"]
                working = row["sequential"]["processor"] / row[name]["processor"]
                told.append(f"{name} {seconds:7.3f} s ({base / seconds:5.1f}x, processor {working:5.1f}x)")
        if "disk" in row:
            disk = row["disk"]
            told.append(f"disk {disk['plain'] / _GB:.2f}, verified {disk['verified'] / _GB:.2f} GB/s")
        print("  ".join(told))
    for row in results["candidates"]:
        seconds, told = row["warm"]["median"], []
        for name in ("sequential", "sequential_extrapolated"):
            if name in row:
                base = row[name]["median"] if isinstance(row[name], dict) else row[name]
                told.append(f"{name} {base:.1f} s ({base / seconds:.0f}x)")
        print(
            f"{row['tokens']:6d} candidate tokens, {row['attended']} of {row['passages']} passages attended: "
            f"{seconds:.3f} s; {'; '.join(told)}"
        )
