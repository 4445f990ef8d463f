"""Inverted lists of FAISS over a segment's vectors, on a processor or on GPUs.

Jegou, Douze and Schmid (2011), "Product quantization for nearest neighbor search": vectors lie in lists by
their nearest of ``nlist`` centroids, and a search scores those of the ``nprobe`` nearest centroids. Scores
from codes choose candidates only; what is returned is scored with the stored vectors.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError, IndexDamagedError

Kind = Literal["flat", "ivf_sq8", "ivf_pq"]
Device = Literal["auto", "cpu", "gpu"]

_TRAINING_PER_LIST = 39  # fewer and FAISS warns that centroids are guesses
_MOST_TRAINING = 64  # of each list; more rows and rounds cost minutes and move centroids little
_ROUNDS = 10
_ADD_ROWS = 65_536
_PQ_DIMS = 8

_log = logging.getLogger("longleaf.faiss")


def library() -> ModuleType:
    """FAISS, imported when first needed."""
    import faiss

    module: ModuleType = faiss
    return module


def gpus(wanted: Device) -> int:
    """How many GPUs searches run on; 0 is the processor, which is told once. Raises ConfigurationError
    if GPUs are demanded and there are none."""
    count = int(getattr(library(), "get_num_gpus", lambda: 0)()) if wanted != "cpu" else 0
    if wanted == "gpu" and not count:
        raise ConfigurationError(
            "indexer.device is 'gpu' and FAISS sees no GPU.",
            remedy="Install longleaf[faiss-gpu] where a CUDA device is, or set indexer.device to 'auto'.",
        )
    _log.info("FAISS searches on %s", f"{count} GPUs in float16" if count else "the processor")
    return count


def lists_for(rows: int) -> int:
    """Number of lists: four times the root of the rows, as FAISS advises, with enough rows in each."""
    return max(1, min(int(4 * math.sqrt(rows)), rows // _TRAINING_PER_LIST))


def build(vectors: NDArray[np.float32], kind: Kind, path: Path, previous: Path | None = None) -> None:
    """Write the lists of these vectors to a file. ``previous`` is a file of lists whose centroids serve
    again, which saves the training."""
    faiss = library()
    rows, dim = vectors.shape
    index = None
    if previous is not None:
        index = faiss.read_index(str(previous))  # into memory: adding to a mapped one aborts the process
        index.reset()
    if index is None:
        subspaces = next(m for m in range(max(1, dim // _PQ_DIMS), 0, -1) if dim % m == 0)
        coding = "SQ8" if kind == "ivf_sq8" else f"PQ{subspaces}x8"
        index = faiss.index_factory(dim, f"IVF{lists_for(rows)},{coding}", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = _ROUNDS
        if kind == "ivf_pq":
            index.pq.cp.min_points_per_centroid = 1  # of each subspace there are 256, for few rows as well
        most = min(rows, max(_MOST_TRAINING * index.nlist, 10_000))
        chosen = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        index.train(np.ascontiguousarray(vectors[chosen]))
    for start in range(0, rows, _ADD_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _ADD_ROWS]))
    faiss.write_index(index, str(path))


class Lists:
    """Candidates of one segment, from a file that was checked."""

    def __init__(self, path: Path, rows: int, gpu_count: int) -> None:
        faiss = library()
        self._faiss = faiss
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise IndexDamagedError(f"FAISS cannot read {path}: {error}.") from error
        if self._index.ntotal != rows:
            raise IndexDamagedError(f"{path} has {self._index.ntotal} vectors, not {rows}.")
        self.count = int(self._index.nlist)
        self._gpu = _on_gpus(faiss, faiss.read_index(str(path)), gpu_count) if gpu_count else None

    def candidates(
        self, queries: NDArray[np.float32], most: int, nprobe: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Rows ``(queries, most)`` that may be the nearest, -1 where there are no more. ``allowed`` says
        which rows may be found; with it the processor searches, since lists on GPUs know no filter."""
        faiss, parameters = self._faiss, {"nprobe": min(nprobe, self.count)}
        if allowed is None and self._gpu is not None:
            most = min(most, 2048)  # what a GPU can select
            return np.asarray(
                self._gpu.search(queries, most, params=faiss.SearchParametersIVF(**parameters))[1]
            )
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            parameters["sel"] = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        found = self._index.search(queries, most, params=faiss.SearchParametersIVF(**parameters))
        return np.asarray(found[1])


class FlatOnGpu:
    """All vectors of a segment on GPUs in float16, for exact candidates."""

    def __init__(self, vectors: NDArray[np.float32], gpu_count: int) -> None:
        faiss = library()
        flat = faiss.IndexFlatIP(vectors.shape[1])
        for start in range(0, len(vectors), _ADD_ROWS):
            flat.add(np.ascontiguousarray(vectors[start : start + _ADD_ROWS]))
        self._gpu = _on_gpus(faiss, flat, gpu_count)

    def candidates(self, queries: NDArray[np.float32], most: int) -> NDArray[np.int64]:
        """Rows ``(queries, most)`` with the highest scores in half precision."""
        return np.asarray(self._gpu.search(queries, min(most, 2048))[1])


def _on_gpus(faiss: ModuleType, index: Any, gpu_count: int) -> Any:  # noqa: ANN401 - FAISS is untyped
    """The index divided over GPUs, its numbers in half precision."""
    options = faiss.GpuMultipleClonerOptions()
    options.shard = gpu_count > 1
    options.useFloat16 = True
    return faiss.index_cpu_to_all_gpus(index, co=options, ngpu=gpu_count)
