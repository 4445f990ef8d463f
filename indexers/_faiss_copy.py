"""The accelerated copy of one index: segments on disk, what changed since in memory, what was deleted marked.

It can always be thrown away: the record beside it has every point. Before the first change after a flush the
manifest is marked unclean, and a flush marks it clean once all is on disk, so a copy that a crash left behind
its record is known to be stale, and stays unused until it was rebuilt.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import _faiss_lists as lists
from indexers import _folders
from indexers._faiss_scan import Part, Spec
from indexers._faiss_segments import (
    LISTS,
    Described,
    Segment,
    free_bytes,
    merge,
    open_segment,
    remove_others,
    sealed,
    write_points,
)
from indexers._projection import condition
from pipeline.errors import DiskFullError, IndexDamagedError
from pipeline.filters import Filter, matches
from pipeline.originals import disk_errors
from pipeline.points import PointBatch
from pipeline.types import Point

_MANIFEST = "copy.json"
_FORMAT = 1
_FRESH_POINTS = 8192  # more than these in memory become a segment
_MOST_SEGMENTS = 16  # with one more, the smallest of them become one
_MERGED_SEGMENTS = 12
_SMALL_SHARE = 0.1  # small segments together above this share of the largest are merged into it


@dataclass(frozen=True, slots=True)
class Fresh:
    """A point that is in no segment yet."""

    text: str
    payload: Mapping[str, Any]
    vector: NDArray[np.float32]


class Copy:
    """One index's copy. Thread-safe: one writer at a time, readers on snapshots."""

    def __init__(self, root: Path, dim: int, fingerprint: str, spec: Spec, points: int) -> None:
        """Open what is under ``root``; ``points`` is how many the record has."""
        self._root = root
        self._dim = dim
        self._fingerprint = fingerprint
        self._spec = spec
        self._lock = threading.RLock()
        self._seen: tuple[tuple[Part, ...], dict[str, Fresh]] = ((), {})
        self._clean = False
        self.stale = ""
        try:
            self._open(points)
        except IndexDamagedError as error:
            self.stale = error.message

    def snapshot(self) -> tuple[tuple[Part, ...], dict[str, Fresh]]:
        """What a search looks at. It never waits, and what it got does not change."""
        return self._seen

    def trusted(self) -> bool:
        """Whether it has what its record has."""
        return not self.stale

    @property
    def _parts(self) -> tuple[Part, ...]:
        return self._seen[0]

    @property
    def _fresh(self) -> dict[str, Fresh]:
        return self._seen[1]

    def _show(self, parts: tuple[Part, ...], fresh: dict[str, Fresh]) -> None:
        self._seen = (parts, fresh)

    def put(self, batch: PointBatch) -> None:
        """Points that the record has taken."""
        assert batch.dense is not None
        with self._lock:
            if self.stale:
                return
            self._changing()
            new = {
                point: Fresh(text, json.loads(text), vector)
                for point, text, vector in zip(batch.ids, batch.payloads, batch.dense, strict=True)
            }
            self._show(self._without(batch.ids), {**self._fresh, **new})
            if len(self._fresh) > _FRESH_POINTS:
                self._settle()

    def remove(self, where: Filter) -> None:
        """Points that the record has removed."""
        described = condition(where)
        with self._lock:
            if self.stale:
                return
            self._changing()
            parts = (part.without(part.segment.columns.select(described)) for part in self._parts)
            fresh = {k: v for k, v in self._fresh.items() if not matches(where, v.payload)}
            self._show(tuple(parts), fresh)

    def flush(self) -> None:
        """Write what is in memory, and that this is all."""
        with self._lock:
            if not self.stale and not self._clean:
                self._settle()
                self._write_manifest(clean=True)
                self._tidy()

    def distrust(self, why: str) -> None:
        """Leave the copy unused until it was rebuilt."""
        with self._lock:
            self.stale = why
            self._show((), {})
            with disk_errors(self._root):
                (self._root / _MANIFEST).unlink(missing_ok=True)

    def optimize(self, record: Callable[[], Iterable[Point]], points: int) -> None:
        """Rewrite segments that have deleted points, merge small ones, and build lists where they help.
        A stale copy is rebuilt from the record's points. Raises DiskFullError before it starts.
        Searches go on meanwhile; writes wait."""
        with self._lock:
            if self.stale:
                self._check_space(points * (4 * self._dim + 1000))
                parts = self._rebuilt(record())
            else:
                self._changing()
                self._settle()
                parts = self._merged()
            self._show(tuple(self._with_lists(part) for part in parts), {})
            self._write_manifest(clean=True)
            self.stale = ""
            self._tidy()

    def alive(self) -> int:
        """Points in it."""
        parts, fresh = self.snapshot()
        return sum(part.alive for part in parts) + len(fresh)

    def _open(self, points: int) -> None:
        try:
            head, _, body = (self._root / _MANIFEST).read_bytes().partition(b"\n")
        except FileNotFoundError:
            if points:
                self.stale = "it has not been built yet"
            return
        if hashlib.sha256(body).hexdigest().encode() != head:
            raise IndexDamagedError(f"{self._root / _MANIFEST} is not as it was written.")
        content = json.loads(body)
        made = (content["format"], content["dim"], content["fingerprint"], content["kind"])
        if made != (_FORMAT, self._dim, self._fingerprint, self._spec.kind):
            self.stale = "it was made with other settings"
        elif not content["clean"]:
            self.stale = "its record changed after it was last written"
        else:
            self._show(tuple(map(self._part, content["segments"])), {})
            if self.alive() != points:
                self.stale = f"it has {self.alive():,} points and its record {points:,}"
                self._show((), {})
            self._clean = True

    def _tidy(self) -> None:
        """Remove the segments that the manifest no longer names; searches that have them keep them open."""
        remove_others(self._root, (part.segment.described.folder for part in self._parts))

    def _part(self, written: Mapping[str, Any]) -> Part:
        described = Described(**written["described"])
        segment = open_segment(self._root, described)
        bits = np.frombuffer(base64.b64decode(written["dead"]), np.uint8)
        dead = np.unpackbits(bits, count=len(segment)).astype(np.bool_)
        return Part.of(segment, dead, self._spec)

    def _changing(self) -> None:
        if self._clean or not (self._root / _MANIFEST).exists():
            with disk_errors(self._root):
                self._root.mkdir(parents=True, exist_ok=True)
            self._write_manifest(clean=False)

    def _write_manifest(self, *, clean: bool) -> None:
        segments = [
            {
                "described": asdict(part.segment.described),
                "dead": base64.b64encode(np.packbits(part.dead).tobytes()).decode(),
            }
            for part in self._parts
        ]
        content = {
            "format": _FORMAT,
            "dim": self._dim,
            "fingerprint": self._fingerprint,
            "kind": self._spec.kind,
            "clean": clean,
            "segments": segments,
        }
        body = json.dumps(content, ensure_ascii=False).encode()
        with disk_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
        _folders.write_durably(
            self._root / _MANIFEST, hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        )
        self._clean = clean

    def _without(self, ids: Sequence[str]) -> tuple[Part, ...]:
        """The segments with the rows of these ids marked as deleted."""
        made = []
        for part in self._parts:
            rows = [row for point in ids if (row := part.segment.find(point)) is not None]
            doomed = np.zeros(len(part.segment), np.bool_)
            doomed[rows] = True
            made.append(part.without(doomed) if rows else part)
        return tuple(made)

    def _settle(self) -> None:
        """What is in memory becomes a segment."""
        if self._fresh:
            points = ((key, self._fresh[key].text, self._fresh[key].vector) for key in sorted(self._fresh))
            self._show((*self._parts, self._new(points)), {})
        if len(self._parts) > _MOST_SEGMENTS:  # every flush makes one, and every search asks all
            by_size = sorted(self._parts, key=lambda part: len(part.segment))
            small, others = by_size[:_MERGED_SEGMENTS], by_size[_MERGED_SEGMENTS:]
            self._show((*others, *self._one(small, None)), {})

    def _new(self, points: Iterator[tuple[str, str, Any]]) -> Part:
        described = write_points(self._root, uuid.uuid4().hex, self._dim, points)
        return self._fresh_part(described)

    def _fresh_part(self, described: Described) -> Part:
        segment = open_segment(self._root, described, written_now=True)
        return Part.of(segment, np.zeros(len(segment), np.bool_), self._spec)

    def _rebuilt(self, record: Iterable[Point]) -> tuple[Part, ...]:
        texts = ((point.id, _text(point.payload), point.dense) for point in record)
        first = next(texts, None)
        return (self._new(itertools.chain([first], texts)),) if first is not None else ()

    def _merged(self) -> tuple[Part, ...]:
        if not self._parts:
            return ()
        largest = max(self._parts, key=lambda part: len(part.segment))
        small = [part for part in self._parts if part is not largest]
        if largest.dead.any() or sum(len(p.segment) for p in small) > _SMALL_SHARE * len(largest.segment):
            return self._one(self._parts, largest)
        if len(small) > 1 or any(part.dead.any() for part in small):
            return (largest, *self._one(small, None))
        return self._parts

    def _one(self, parts: Sequence[Part], largest: Part | None) -> tuple[Part, ...]:
        """These parts as one, with the centroids of the largest if it has some."""
        if len(parts) == 1 and not parts[0].dead.any():
            return tuple(parts)
        self._check_space(sum(size for p in parts for size, _ in p.segment.described.files.values()))
        described = merge(self._root, uuid.uuid4().hex, [(part.segment, part.dead) for part in parts])
        if described is None:
            return ()
        made = self._fresh_part(described)
        return (self._with_lists(made, largest.segment if largest is not None else None),)

    def _with_lists(self, part: Part, before: Segment | None = None) -> Part:
        """The part with lists, if it is large enough and has none yet."""
        segment, spec = part.segment, self._spec
        if spec.kind == "flat" or len(segment) < spec.exact_below_points or part.lists is not None:
            return part
        old = before.path / LISTS if before is not None else None
        fits = old is not None and old.exists() and 0.5 < len(segment) / max(1, len(before or ())) < 2
        self._check_space(len(segment) * (self._dim + 16))
        with disk_errors(self._root):
            lists.build(segment.vectors, spec.kind, segment.path / LISTS, old if fits else None)
        described = sealed(self._root, segment.described)
        return Part.of(open_segment(self._root, described, written_now=True), part.dead, spec)

    def _check_space(self, needed_bytes: int) -> None:
        free = free_bytes(self._root)
        if free < needed_bytes + self._spec.reserve_bytes:
            raise DiskFullError(
                f"The disk of {self._root} has {free:,} bytes free; rewriting the accelerator needs "
                f"{needed_bytes:,} and {self._spec.reserve_bytes:,} are kept in reserve.",
                remedy="Free space there; searches work meanwhile.",
            )


def _text(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
