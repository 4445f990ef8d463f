"""Immutable tables of points on disk: vectors, payloads, filter columns and, for many points, FAISS lists.

A segment is a folder of plain arrays that are mapped into memory, so opening one reads nothing but what is
hashed. Every file's size and SHA-256 is in the manifest of the index, and is checked before the file is
given to NumPy or FAISS: neither notices a flipped byte, and FAISS may read past the end of a short file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import _folders
from indexers._columns import Columns, ColumnsWriter, merged
from indexers._projection import record
from pipeline import durable
from pipeline.errors import IndexDamagedError
from pipeline.originals import disk_errors

LISTS = "lists.faiss"
_ARRAYS = ("vectors", "ids", "offsets", "facts", "fact_rows", "values", "value_rows")
_PAYLOADS = "payloads.json"
_COPY_ROWS = 8192

Dead = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Described:
    """What the manifest says of one segment. ``files`` maps each name to its size and SHA-256."""

    folder: str
    size: int
    spans: Mapping[str, tuple[int, int]]
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows in the order of their ids: ``vectors`` float32 ``(n, dim)``, ``ids`` big-endian ``(n, 16)``."""

    path: Path
    described: Described
    vectors: NDArray[np.float32]
    ids: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    payloads: NDArray[np.uint8]
    columns: Columns

    def __len__(self) -> int:
        return self.described.size

    def id(self, row: int) -> str:
        """The id of a row."""
        text = self.ids[row].tobytes().hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def text(self, row: int) -> bytes:
        """The payload of a row as JSON."""
        return self.payloads[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def payload(self, row: int) -> Mapping[str, Any]:
        """The payload of a row."""
        value: dict[str, Any] = json.loads(self.text(row))
        return value

    def find(self, point: str) -> int | None:
        """The row of an id, or None."""
        raw = np.frombuffer(bytes.fromhex(point.replace("-", "")), np.uint8)
        row = int(np.searchsorted(self.keys, _keys(raw[None])[0]))
        while row < len(self) and self.keys[row] == _keys(raw[None])[0]:
            if (self.ids[row] == raw).all():
                return row
            row += 1
        return None


def _keys(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first halves of ids as numbers: they order as the ids do, and nearly always differ."""
    return np.ascontiguousarray(ids[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def open_segment(root: Path, described: Described, *, written_now: bool = False) -> Segment:
    """Raises IndexDamagedError, before anything is mapped, if a file is not what was written, unless that
    was by this process just now."""
    path = root / described.folder
    for name, (size, digest) in described.files.items() if not written_now else ():
        file = path / name
        if not file.is_file() or file.stat().st_size != size or _digest(file) != digest:
            raise IndexDamagedError(f"{file} is missing or not as it was written.", remedy=_folders.REBUILD)
    arrays = {name: _mapped(path / f"{name}.npy") for name in _ARRAYS}
    columns = Columns(
        described.size,
        arrays["facts"],
        arrays["fact_rows"],
        arrays["values"],
        arrays["value_rows"],
        {key: (start, end) for key, (start, end) in described.spans.items()},
    )
    payloads = np.memmap(path / _PAYLOADS, np.uint8, "r")
    ids = arrays["ids"]
    return Segment(path, described, arrays["vectors"], ids, _keys(ids), arrays["offsets"], payloads, columns)


def write_points(root: Path, folder: str, dim: int, points: Iterable[tuple[str, str, Any]]) -> Described:
    """A segment of points that come in id order as id, payload text, and vector. There is at least one."""
    path = root / folder
    writer, offsets, raw = ColumnsWriter(), [0], bytearray()
    with disk_errors(path):
        path.mkdir(parents=True)
        with (path / _PAYLOADS).open("wb") as payloads, (path / "vectors.raw").open("wb") as vectors:
            for point, text, vector in points:
                data = text.encode()
                payloads.write(data)
                offsets.append(offsets[-1] + len(data))
                raw += bytes.fromhex(point.replace("-", ""))
                writer.add(record(text))
                vectors.write(np.ascontiguousarray(vector, np.float32).tobytes())
        size = len(offsets) - 1
        mapped = np.memmap(path / "vectors.raw", np.float32, "r", shape=(size, dim))
        np.save(path / "vectors.npy", mapped)
        (path / "vectors.raw").unlink()
        ids = np.frombuffer(bytes(raw), np.uint8).reshape(size, 16)
        return _finish(path, folder, ids, np.array(offsets, np.int64), writer.columns())


def merge(root: Path, folder: str, parts: Sequence[tuple[Segment, Dead]]) -> Described | None:
    """One segment of what is alive in several; None where nothing is."""
    alive = [np.flatnonzero(~dead) for _, dead in parts]
    owner = np.repeat(np.arange(len(parts)), [len(rows) for rows in alive])
    source = np.concatenate(alive)
    if not len(source):
        return None
    ids = np.concatenate([segment.ids[rows] for (segment, _), rows in zip(parts, alive, strict=True)])
    order = np.lexsort((_keys(ids[:, 8:]), _keys(ids)))
    owner, source, ids = owner[order], source[order], ids[order]
    path = root / folder
    with disk_errors(path):
        path.mkdir(parents=True)
        offsets = _copy_payloads(path, parts, owner, source)
        _copy_vectors(path, parts, owner, source)
        places = []
        for number, (segment, _) in enumerate(parts):
            new = np.full(len(segment), -1, np.int32)
            mine = np.flatnonzero(owner == number)
            new[source[mine]] = mine
            places.append((segment.columns, new))
        return _finish(path, folder, ids, offsets, merged(places, len(ids)))


def _copy_payloads(
    path: Path,
    parts: Sequence[tuple[Segment, Dead]],
    owner: NDArray[np.int64],
    source: NDArray[np.int64],
) -> NDArray[np.int64]:
    sizes = np.empty(len(source), np.int64)
    with (path / _PAYLOADS).open("wb") as file:
        for row, (number, old) in enumerate(zip(owner.tolist(), source.tolist(), strict=True)):
            text = parts[number][0].text(old)
            file.write(text)
            sizes[row] = len(text)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _copy_vectors(
    path: Path,
    parts: Sequence[tuple[Segment, Dead]],
    owner: NDArray[np.int64],
    source: NDArray[np.int64],
) -> None:
    shape = (len(source), parts[0][0].vectors.shape[1])
    target = np.lib.format.open_memmap(path / "vectors.npy", "w+", np.float32, shape)
    for start in range(0, len(source), _COPY_ROWS):
        span = slice(start, start + _COPY_ROWS)
        for number, (segment, _) in enumerate(parts):
            mine = np.flatnonzero(owner[span] == number)
            target[start + mine] = segment.vectors[source[span][mine]]
    target.flush()


def _finish(
    path: Path, folder: str, ids: NDArray[np.uint8], offsets: NDArray[np.int64], columns: Columns
) -> Described:
    """Write what is small, and describe the whole."""
    np.save(path / "ids.npy", ids)
    np.save(path / "offsets.npy", offsets)
    for name in ("facts", "fact_rows", "values", "value_rows"):
        np.save(path / f"{name}.npy", getattr(columns, name))
    return sealed(path.parent, Described(folder, len(ids), dict(columns.spans)))


def sealed(root: Path, described: Described) -> Described:
    """The description with size and checksum of every file there is; they are durable once this returns.
    Files that it names already have not changed: none ever does."""
    path = root / described.folder
    files = {}
    with disk_errors(path):
        for file in sorted(path.iterdir()):
            if file.name in described.files:
                files[file.name] = described.files[file.name]
                continue
            durable.sync(file)
            files[file.name] = (file.stat().st_size, _digest(file))
        durable.sync(path)
        durable.sync(root)
    return Described(described.folder, described.size, described.spans, files)


def remove_others(root: Path, kept: Iterable[str]) -> None:
    """Remove the folders of segments that no manifest names any more."""
    names = set(kept)
    for path in _segments(root):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)


def _segments(root: Path) -> Iterator[Path]:
    return (path for path in root.iterdir() if path.is_dir()) if root.is_dir() else iter(())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path) -> Any:  # noqa: ANN401 - an array of the file's own type
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # nothing in it to map
        return np.load(path, allow_pickle=False)


def free_bytes(path: Path) -> int:
    """Bytes of the disk that a user may still write."""
    place = path
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize
