"""One passage's KV states in one safetensors file with a sealed manifest.

The header names the tensors, as safetensors has it, and carries the manifest and its seal in
``__metadata__``: an HMAC over the whole header, which in turn lists the SHA-256 of every piece of the
data. So nothing is believed before it is verified, and verifying reads each byte once.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch

from pipeline.lm.kv_identity import Address, Origin, TenantKeys, canonical
from pipeline.lm.kv_pages import pages

LAYOUT_VERSION = 1
PIECE_BYTES = 2 * 2**20
_HEAD_BYTES = 16 * 2**10
_MOST_HEADER_BYTES = 4 * 2**20
_ALIGNMENT = 64
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.uint8: "U8",
}
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}


class UnusableFileError(Exception):
    """The file is not what it should be; the message says why. Caught by the store: it is a miss."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one passage's states belong: whose, at which address, and of which origin they have to be."""

    tenant: str
    address: Address
    origin: Origin


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file says about itself. ``seconds`` is what computing its states took."""

    version: int
    tenant: str
    owner: str
    name: str
    origin: dict[str, str]
    tokens: int
    seconds: float
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified header: the manifest, where each tensor is, and where the data begin and end."""

    manifest: Manifest
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...], int, int]]
    start: int
    data_bytes: int


def write(
    path: Path,
    keys: TenantKeys,
    slot: Slot,
    tensors: Mapping[str, torch.Tensor],
    *,
    tokens: int,
    seconds: float,
) -> int:
    """Write the file under another name and rename it; returns its bytes. Raises OSError.

    There is no fsync: after a power cut a file that is not whole does not verify and is built again.
    """
    buffers, table, at = [], {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):  # aligned
        raw = memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).reshape(-1).numpy())
        table[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(raw)],
        }
        at += len(raw)
        buffers.append(raw)
    pieces = tuple(_digests(buffers))
    manifest = Manifest(
        LAYOUT_VERSION,
        slot.address.tenant,
        slot.address.owner,
        slot.address.name,
        asdict(slot.origin),
        tokens,
        round(seconds, 6),
        pieces,
    )
    told = canonical(asdict(manifest))
    seal = keys.seal(slot.tenant, _sealed(table, told))
    header = json.dumps({"__metadata__": {"manifest": told, "seal": seal}, **table}).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for raw in buffers:
                file.write(raw)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return 8 + len(header) + at


def read(
    path: Path,
    keys: TenantKeys,
    slot: Slot,
    readers: Executor,
) -> tuple[Manifest, dict[str, torch.Tensor]]:
    """The verified tensors, in memory of their own. Raises UnusableFileError; OSError if it is not there.

    Each piece is read into that memory and hashed there, so that what is verified is what is used, even
    if somebody writes to the file meanwhile. The file is not mapped: a mapped page that cannot be read
    (a bad sector, a file cut off underneath) would end the process instead of being a miss.
    """
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        opened = _open(file, keys, slot.tenant)
        _check_is(opened.manifest, slot)
        data = pages(opened.data_bytes)
        _read_verified(file.fileno(), opened, data, readers)
    return opened.manifest, _tensors(opened, data)


def peek(path: Path, keys: TenantKeys, tenant: str) -> Manifest:
    """The sealed manifest without the data. Raises UnusableFileError and OSError."""
    with path.open("rb", buffering=0) as file:
        return _open(file, keys, tenant).manifest


def _open(file: RawIOBase, keys: TenantKeys, tenant: str) -> Opened:
    size = os.fstat(file.fileno()).st_size
    head = file.read(_HEAD_BYTES) or b""
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= min(_MOST_HEADER_BYTES, size - 8):
        raise UnusableFileError("its header is cut off")
    if len(head) < 8 + length:
        head += file.read(8 + length - len(head)) or b""
    try:
        header = json.loads(head[8 : 8 + length])
        told, seal = header["__metadata__"]["manifest"], header.pop("__metadata__")["seal"]
        sealed = keys.seal(tenant, _sealed(header, told))
        genuine = hmac.compare_digest(sealed.encode(), str(seal).encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableFileError("its header is damaged") from error
    if not genuine:
        raise UnusableFileError("its seal is not of this server and tenant")
    fields = json.loads(told)
    if fields.get("version") != LAYOUT_VERSION:
        raise UnusableFileError(f"it has layout {fields.get('version')}, not {LAYOUT_VERSION}")
    manifest = Manifest(**{**fields, "pieces": tuple(fields["pieces"])})
    tensors = {
        name: (_BY_NAME[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
        for name, entry in header.items()
    }
    data_bytes = max((end for _, _, _, end in tensors.values()), default=0)
    if size != 8 + length + data_bytes:
        raise UnusableFileError(f"it has {size} bytes instead of {8 + length + data_bytes}")
    return Opened(manifest, tensors, 8 + length, data_bytes)


def _check_is(manifest: Manifest, slot: Slot) -> None:
    """A genuine file at another's place (swapped, copied, or of another model or prefix) is refused."""
    if differing := slot.origin.differences(manifest.origin):
        raise UnusableFileError(f"it is of another {', '.join(differing)}")
    if (manifest.tenant, manifest.owner, manifest.name) != (
        slot.address.tenant,
        slot.address.owner,
        slot.address.name,
    ):
        raise UnusableFileError("it holds the states of another passage")


def _read_verified(descriptor: int, opened: Opened, data: torch.Tensor, readers: Executor) -> None:
    wanted, view = opened.manifest.pieces, memoryview(data.numpy())
    if len(wanted) != -(-len(view) // PIECE_BYTES):
        raise UnusableFileError("its manifest lists another number of pieces")

    def is_intact(number: int) -> bool:
        start = number * PIECE_BYTES
        piece = view[start : start + PIECE_BYTES]
        at = 0
        while at < len(piece):
            got = os.preadv(descriptor, [piece[at:]], opened.start + start + at)
            if got == 0:
                return False
            at += got
        return hashlib.sha256(piece).hexdigest() == wanted[number]

    if not all(list(readers.map(is_intact, range(len(wanted))))):
        raise UnusableFileError("its data are damaged")


def _tensors(opened: Opened, copied: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        name: copied[start:end].view(dtype).view(shape)
        for name, (dtype, shape, start, end) in opened.tensors.items()
    }


def _digests(buffers: list[memoryview]) -> Iterator[str]:
    """SHA-256 of every ``PIECE_BYTES`` of the data as they will lie in the file, without a copy."""
    digest, room = hashlib.sha256(), PIECE_BYTES
    for raw in buffers:
        at = 0
        while at < len(raw):
            piece = raw[at : at + room]
            digest.update(piece)
            at, room = at + len(piece), room - len(piece)
            if not room:
                yield digest.hexdigest()
                digest, room = hashlib.sha256(), PIECE_BYTES
    if room < PIECE_BYTES:
        yield digest.hexdigest()


def _sealed(table: Mapping[str, Any], told: str) -> bytes:
    return (canonical(table) + "\n" + told).encode()
