"""FAISS on GPUs finds what it finds on the processor, within the order of equal scores."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from indexers import faiss
from pipeline.filters import Equals
from pipeline.seams import IndexSchema, IndexSearch
from pipeline.types import Point

library = pytest.importorskip("faiss", reason="needs FAISS for GPUs")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        getattr(library, "get_num_gpus", lambda: 0)() == 0, reason="FAISS sees no GPU on this machine"
    ),
]
NAME = "t/c/units"


@pytest.mark.parametrize("kind", ["flat", "ivf_sq8", "ivf_pq"])
def test_the_same_matches(tmp_path, kind):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, 64))
    vectors = centres[np.arange(20_000) % 100] + 0.7 * rng.standard_normal((20_000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    points = [
        Point(str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))), {"i": i, "tenth": i % 10}, vector)
        for i, vector in enumerate(vectors)
    ]
    options = {"kind": kind, "exact_below_points": 1000, "nprobe": 64, "oversample": 16}
    answers = {}
    for device in ("cpu", "gpu"):
        indexer = faiss.build(
            faiss.TINY.model_copy(update={"path": tmp_path / device, "device": device, **options})
        )
        indexer.create(NAME, IndexSchema("f", 64, False, {}))
        indexer.upsert(NAME, points)
        indexer.optimize(NAME)
        searches = [IndexSearch(10, dense=vectors[i]) for i in range(0, 20_000, 400)]
        filtered = [IndexSearch(10, dense=s.dense, filter=Equals("tenth", 3)) for s in searches]
        answers[device] = indexer.search(NAME, searches + filtered)
        indexer.close()
    shares = []
    for on_cpu, on_gpu in zip(answers["cpu"], answers["gpu"], strict=True):
        scores = {match.id: match.score for match in on_cpu}
        shares.append(sum(match.id in scores for match in on_gpu) / 10)
        for match in on_gpu:
            assert match.id not in scores or match.score == pytest.approx(scores[match.id], abs=1e-6)
    assert np.mean(shares) >= (1 if kind == "flat" else 0.97)
