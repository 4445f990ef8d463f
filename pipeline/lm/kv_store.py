"""KV states of passages in memory and on disk, each tier within its own budget of bytes.

A request *holds* the passages it attends: they are found in memory, read from disk or built, once each
however many requests want them, and none is dropped while it is held.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.errors import ConfigurationError
from pipeline.lm.kv_disk import Checked, DiskTier, Stored
from pipeline.lm.kv_format import KvFormat, KvStates, check_format, decode, encode, stored_bytes
from pipeline.lm.kv_identity import Address, Origin, PassageKey, TenantKeys
from pipeline.lm.kv_memory import MemoryTier
from pipeline.lm.kv_pages import settled
from pipeline.lm.kv_writer import Writer
from pipeline.records import VersionKey

Found = Literal["memory", "disk", "built"]
Build = Callable[[int], KvStates]

_FETCHES = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """What all passages of one model have in common: layers, KV heads, width, number format, device."""

    layers: int
    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device

    def passage_bytes(self, tokens: int, kind: KvFormat) -> int:
        """Bytes of a passage of so many tokens as it is stored."""
        return stored_bytes((self.layers, self.heads, tokens, self.width), kind, self.dtype)


@dataclass(slots=True)
class StoreCounts:
    """Tokens asked for and where they came from, since this process began."""

    requested_tokens: int = 0
    memory_tokens: int = 0
    disk_tokens: int = 0
    built_tokens: int = 0
    built_seconds: float = 0.0
    unwritten: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """One passage in use. ``found`` says where it came from; ``seconds`` is what reading or building took."""

    key: PassageKey
    tensors: Mapping[str, torch.Tensor]
    found: Found
    seconds: float


class KvStore:
    """Both tiers. Thread-safe; one copy of a passage in memory serves every request."""

    def __init__(
        self,
        shape: Shape,
        *,
        memory_bytes: int,
        kind: str = "native",
        folder: Path | None = None,
        disk_bytes: int = 0,
    ) -> None:
        """``folder`` None or ``disk_bytes`` 0 means memory only. Raises ConfigurationError, StorageError."""
        if memory_bytes < 1 or disk_bytes < 0:
            raise ConfigurationError(
                f"The budgets are {memory_bytes:,} bytes of memory and {disk_bytes:,} of disk.",
                remedy="Memory must be at least 1 byte, disk at least 0.",
            )
        self.shape = shape
        self.kind = check_format(kind)
        self.counts = StoreCounts()
        self.memory = MemoryTier(memory_bytes)
        self._keys = TenantKeys.in_folder(folder) if folder else TenantKeys(b"memory only")
        self._disk = DiskTier(folder, self._keys, disk_bytes) if folder and disk_bytes else None
        self._writer = Writer()
        self._fetching = ThreadPoolExecutor(_FETCHES, thread_name_prefix="kv-fetch")

    def passage_bytes(self, tokens: int) -> int:
        """Bytes that a passage of so many tokens takes in either tier."""
        return self.shape.passage_bytes(tokens, self.kind)

    def where(self, passage: PassageKey, origin: Origin) -> Literal["memory", "disk"] | None:
        """Where the states of a passage are now, if anywhere."""
        address = self._keys.address(passage, origin)
        if address in self.memory:
            return "memory"
        return "disk" if self._disk is not None and self._disk.holds(address) else None

    @contextmanager
    def hold(
        self,
        passages: Sequence[PassageKey],
        origin: Origin,
        build: Build,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[Held]]:
        """The states of these passages, in order, for as long as the block lasts.

        ``build(i)`` computes those of ``passages[i]``; it is called in this thread, and only where no
        tier and no other request has them. Raises LimitExceededError at once if they exceed the memory
        budget together, WorkCancelledError, and what ``build`` raises.
        """
        addresses = [self._keys.address(passage, origin) for passage in passages]
        places = {address: place for place, address in enumerate(addresses)}
        sizes = {address: self.passage_bytes(passages[place].tokens) for address, place in places.items()}
        mine = self.memory.take(sizes, cancelled)
        fetched: dict[Address, Future[Stored]] = {}
        try:
            found: dict[Address, Held] = {}
            first = sorted(mine, key=places.__getitem__)
            fetched = self._fetch({address: passages[places[address]] for address in first}, origin)
            # Own work first: whoever else wants these passages waits for it, and while this request waits
            # for passages of others, they are being built.
            for address in sorted(places, key=lambda a: (a not in mine, places[a])):
                passage, began = passages[places[address]], time.perf_counter()
                where: Found = "memory"
                if address in mine or self.memory.wait(address, cancelled):
                    mine.add(address)
                    stored = fetched.pop(address, None)
                    where = self._fill(address, passage, origin, stored, partial(build, places[address]))
                self._count(passage.tokens, where)
                tensors = self.memory.used(address)
                found[address] = Held(passage, tensors, where, time.perf_counter() - began)
            yield [found[address] for address in addresses]
        finally:
            for reading in fetched.values():
                reading.cancel()
            self.memory.release(sizes, mine)

    def states(self, held: Held) -> KvStates:
        """What was held, in the model's number format: the stored tensors themselves if they have it."""
        return decode(held.tensors, self.kind, self.shape.dtype)

    def remove(self, owners: Iterable[VersionKey]) -> None:
        """Forget these versions of documents in both tiers; what a request still holds, once it is done.

        Raises StorageError if the disk refuses.
        """
        owners = list(owners)
        gone = {self._keys.owner(owner) for owner in owners}
        self.memory.remove(lambda address: (address.tenant, address.owner) in gone)
        if self._disk is not None:
            self._writer.drain()  # or a write that is under way would put a file back
            self._disk.remove(owners)

    def check(
        self, owners: Iterable[VersionKey], origin: Origin | None, *, data: bool = True
    ) -> Iterator[Checked]:
        """Every file on disk, verified; see :meth:`DiskTier.check`."""
        return self._disk.check(owners, origin, data=data) if self._disk is not None else iter(())

    def prune(self, disk_bytes: int | None = None, checked: Iterable[Checked] = ()) -> tuple[int, int]:
        """Remove what was checked and is not in order, then the least worthy files beyond ``disk_bytes``.

        Returns files and bytes removed.
        """
        if self._disk is None:
            return 0, 0
        bad = [each for each in checked if each.state != "ok"]
        for each in bad:
            self._disk.discard(each)
        files, size = self._disk.prune(self._disk.budget_bytes if disk_bytes is None else disk_bytes)
        return files + len(bad), size + sum(each.bytes for each in bad)

    def stats(self) -> dict[str, Any]:
        """Budgets, what is used of them, and counts since the start, for people and metrics."""
        memory = self.memory
        disk: dict[str, Any] = {"entries": 0, "bytes": 0, "budget_bytes": 0}
        if self._disk is not None:
            disk = {"entries": len(self._disk), "bytes": self._disk.bytes}
            disk |= {"budget_bytes": self._disk.budget_bytes, **asdict(self._disk.counts)}
        return {
            "format": self.kind,
            "bytes_per_1000_tokens": self.passage_bytes(1000),
            "memory": {
                "entries": len(memory),
                "bytes": memory.bytes,
                "held_bytes": memory.held_bytes,
                "peak_bytes": memory.peak_bytes,
                "budget_bytes": memory.budget_bytes,
                "evicted": memory.evicted,
                "evicted_bytes": memory.evicted_bytes,
            },
            "disk": disk,
            "tokens": asdict(self.counts),
        }

    def evicted_tokens(self) -> tuple[int, int]:
        """Tokens that left memory, and disk, for want of room, reckoned from their bytes."""
        most = 1_000
        a_token = (self.passage_bytes(most + 1) - self.passage_bytes(1)) / most
        each = self.passage_bytes(1) - a_token  # of every passage, whatever its length
        left = [(self.memory.evicted_bytes, self.memory.evicted)]
        if self._disk is not None:
            left.append((self._disk.counts.evicted_bytes, self._disk.counts.evicted))
        memory, disk = [*(round((size - count * each) / a_token) for size, count in left), 0][:2]
        return memory, disk

    def flush(self) -> None:
        """Return once everything built so far is on disk, or cannot be."""
        self._writer.drain()

    def close(self) -> None:
        """Finish writing and let go of memory and threads."""
        self._writer.close()
        self._fetching.shutdown(cancel_futures=True)
        if self._disk is not None:
            self._disk.close()
        self.memory.clear()

    def _fetch(self, wanted: Mapping[Address, PassageKey], origin: Origin) -> dict[Address, Future[Stored]]:
        """Begin to read these from disk, a few at a time: while one is verified, the next is coming."""
        if self._disk is None:
            return {}
        get = self._disk.get
        return {address: self._fetching.submit(get, passage, origin) for address, passage in wanted.items()}

    def _fill(
        self,
        address: Address,
        passage: PassageKey,
        origin: Origin,
        fetched: Future[Stored] | None,
        build: Callable[[], KvStates],
    ) -> Found:
        stored = fetched.result() if fetched is not None else None
        if fetched is None and self._disk is not None:  # taken over from a request that gave up
            stored = self._disk.get(passage, origin)
        if stored is not None:
            tensors, manifest = stored
            placed = {name: tensor.to(self.shape.device) for name, tensor in tensors.items()}
            self.memory.fill(address, placed, manifest.seconds)
            return "disk"
        began = time.perf_counter()
        built = {name: settled(tensor) for name, tensor in encode(build(), self.kind).items()}
        seconds = time.perf_counter() - began
        self.counts.built_seconds += seconds
        self.memory.fill(address, built, seconds)
        if self._disk is not None:
            self.memory.hold(address)
            self._writer.add(partial(self._write, self._disk, address, passage, origin, built, seconds))
        return "built"

    def _write(  # noqa: PLR0917 - one call, made in another thread
        self,
        disk: DiskTier,
        address: Address,
        passage: PassageKey,
        origin: Origin,
        tensors: Mapping[str, torch.Tensor],
        seconds: float,
    ) -> None:
        try:
            if not self.memory.is_removed(address) and disk.put(passage, origin, tensors, seconds=seconds):
                self.counts.unwritten += 1
        finally:
            self.memory.release([address])

    def _count(self, tokens: int, found: Found) -> None:
        self.counts.requested_tokens += tokens
        name = f"{found}_tokens"
        setattr(self.counts, name, getattr(self.counts, name) + tokens)
