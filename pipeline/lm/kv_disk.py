"""The disk tier: sealed files within a budget of bytes, the least worth keeping removed first.

Several processes may share the folder: files appear by renaming and vanish by unlinking, and whoever
finds one missing has a miss. Each process keeps its own index of the folder and reads it again when it
is about to remove something.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from pipeline.lm.kv_identity import Address, Origin, PassageKey, TenantKeys
from pipeline.lm.kv_value import Use, Uses
from pipeline.originals import disk_errors
from pipeline.records import VersionKey

Stored: TypeAlias = "tuple[dict[str, torch.Tensor], Manifest] | None"

if TYPE_CHECKING:
    import torch

    from pipeline.lm.kv_file import Manifest

_READERS = 4
_TEMPORARY_SECONDS = 3600.0
_SPARE = 0.05


@dataclass(slots=True)
class DiskCounts:
    """What happened since this process began."""

    hits: int = 0
    misses: int = 0
    unusable: int = 0
    written: int = 0
    evicted: int = 0
    evicted_bytes: int = 0
    failed_writes: int = 0
    read_bytes: int = 0
    read_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checked:
    """One file as :meth:`DiskTier.check` finds it. ``state`` is ok, stale, orphan or damaged."""

    path: str
    bytes: int
    tokens: int
    state: str
    why: str = ""


class DiskTier:
    """Files below one folder. Thread-safe."""

    def __init__(self, folder: Path, keys: TenantKeys, budget_bytes: int) -> None:
        """Reads what the folder holds. Raises StorageError if it cannot be used."""
        self._folder = folder
        self._keys = keys
        self._budget_bytes = budget_bytes
        self._uses = Uses()
        self._files: dict[str, Use] = {}
        self._bytes = 0
        self._lock = Lock()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="kv-read")
        self.counts = DiskCounts()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._rescan()

    @property
    def bytes(self) -> int:
        """Bytes of all files, as far as this process knows."""
        return self._bytes

    @property
    def budget_bytes(self) -> int:
        """Most bytes of all files together."""
        return self._budget_bytes

    def __len__(self) -> int:
        return len(self._files)

    def holds(self, address: Address) -> bool:
        """Whether there is a file; it may still turn out unusable."""
        return (self._folder / address.path).exists()

    def get(self, passage: PassageKey, origin: Origin) -> Stored:
        """The verified tensors on the CPU, or None. A file that does not verify is removed."""
        from pipeline.lm import kv_file

        address = self._keys.address(passage, origin)
        path, began = self._folder / address.path, time.perf_counter()
        try:
            slot = kv_file.Slot(passage.owner.tenant, address, origin)
            manifest, tensors = kv_file.read(path, self._keys, slot, self._readers)
        except FileNotFoundError:
            self.counts.misses += 1
            self._forget(address.path)
            return None
        except (kv_file.UnusableFileError, OSError):
            self.counts.unusable += 1
            self._unlink(address.path)
            return None
        size = path_bytes(path)
        self.counts.hits += 1
        self.counts.read_bytes += size
        self.counts.read_seconds += time.perf_counter() - began
        self._note(address.path, Use(size, manifest.seconds, self._uses.touch(address.path)))
        with contextlib.suppress(OSError):  # recency that the next process can see
            path.touch()
        return tensors, manifest

    def put(
        self,
        passage: PassageKey,
        origin: Origin,
        tensors: Mapping[str, torch.Tensor],
        *,
        seconds: float,
    ) -> str:
        """Write one passage's states; returns why it was not written, or nothing.

        What does not fit the budget or the disk is not written: a cache may forget.
        """
        from pipeline.lm import kv_file

        address = self._keys.address(passage, origin)
        size = sum(tensor.nbytes for tensor in tensors.values()) + 16 * 1024
        if size > self._budget_bytes:
            return f"{size:,} bytes do not fit the disk budget of {self._budget_bytes:,}"
        self._trim(size)
        try:
            written = kv_file.write(
                self._folder / address.path,
                self._keys,
                kv_file.Slot(passage.owner.tenant, address, origin),
                tensors,
                tokens=passage.tokens,
                seconds=seconds,
            )
        except OSError as error:
            self.counts.failed_writes += 1
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return f"the disk of {self._folder} is full" if full else f"it cannot be written: {error}"
        self.counts.written += 1
        self._note(address.path, Use(written, seconds, self._uses.touch(address.path)))
        return ""

    def remove(self, owners: Iterable[VersionKey]) -> None:
        """Remove everything of these versions, for good. Raises StorageError."""
        owners = list(owners)
        remove_files(self._folder, self._keys, owners)
        gone = tuple(f"{tenant}/{name}/" for tenant, name in map(self._keys.owner, owners))
        with self._lock:
            for path in [path for path in self._files if path.startswith(gone)]:
                self._bytes -= self._files.pop(path).size_bytes
                self._uses.forget(path)

    def prune(self, budget_bytes: int) -> tuple[int, int]:
        """Remove the least worthy files until at most so many bytes are left, and what broken writes left.

        Returns files and bytes removed.
        """
        with disk_errors(self._folder):
            for temporary in self._folder.glob("*/*/.*.tmp"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - temporary.stat().st_mtime > _TEMPORARY_SECONDS:
                        temporary.unlink()
        before, bytes_before = len(self), self._bytes
        self._trim(max(self._budget_bytes - budget_bytes, 0))
        for folder in [*self._folder.glob("*/*"), *self._folder.glob("*")]:
            if folder.is_dir():
                with contextlib.suppress(OSError):  # those that are not empty stay
                    folder.rmdir()
        return before - len(self), bytes_before - self._bytes

    def check(
        self, owners: Iterable[VersionKey], origin: Origin | None, *, data: bool = True
    ) -> Iterator[Checked]:
        """Verify every file. With ``origin``, those of another model, prefix or format are stale.

        ``owners`` are the versions of documents that there are; files of anything else are orphans.
        """
        tenants = {self._keys.owner(owner): owner.tenant for owner in owners}
        with self._lock:
            self._rescan()
            paths = sorted(self._files)
        for path in paths:
            tenant, owner, _ = path.split("/")
            yield self._check(path, tenants.get((tenant, owner)), origin, data=data)

    def discard(self, checked: Checked) -> None:
        """Remove a file that :meth:`check` found stale or damaged."""
        self._unlink(checked.path)

    def close(self) -> None:
        """Stop the readers."""
        self._readers.shutdown()

    def _check(self, path: str, tenant: str | None, origin: Origin | None, *, data: bool) -> Checked:
        from pipeline.lm import kv_file

        size = path_bytes(self._folder / path)
        if tenant is None:
            return Checked(path, size, 0, "orphan", "its document is not there any more")
        try:
            manifest = kv_file.peek(self._folder / path, self._keys, tenant)
            if origin is not None and (differing := origin.differences(manifest.origin)):
                why = f"another {', '.join(differing)}"
                return Checked(path, size, manifest.tokens, "stale", why)
            if data:
                folder, owner, name = path.removesuffix(".safetensors").split("/")
                slot = kv_file.Slot(tenant, Address(folder, owner, name), Origin(**manifest.origin))
                kv_file.read(self._folder / path, self._keys, slot, self._readers)
        except (kv_file.UnusableFileError, OSError) as error:
            return Checked(path, size, 0, "damaged", str(error))
        return Checked(path, size, manifest.tokens, "ok")

    def _trim(self, needed_bytes: int) -> None:
        """Remove files, least worthy first, if ``needed_bytes`` more would exceed the budget; a little more
        than is needed, so that not every file that is written looks through all others."""
        if self._bytes + needed_bytes <= self._budget_bytes:
            return
        with self._lock:
            self._rescan()
            order = sorted(self._files, key=lambda path: self._uses.worth(path, self._files[path]))
        most = self._budget_bytes - max(needed_bytes, int(_SPARE * self._budget_bytes))
        for path in order:
            if self._bytes <= most:
                return
            use = self._files.get(path)
            self.counts.evicted += 1
            self.counts.evicted_bytes += use.size_bytes if use else 0
            self._unlink(path)

    def _rescan(self) -> None:
        """Make the index equal to the folder; files it did not know count as used once, when written."""
        found: dict[str, Use] = {}
        ages: list[tuple[float, str]] = []
        for path in self._folder.glob("*/*/*.safetensors"):
            with contextlib.suppress(FileNotFoundError):
                state, name = path.stat(), path.relative_to(self._folder).as_posix()
                known = self._files.get(name)
                found[name] = known or Use(state.st_size)
                if known is None:
                    ages.append((state.st_mtime, name))
        for _, name in sorted(ages):
            found[name].last = self._uses.touch(name)
        self._files = found
        self._bytes = sum(use.size_bytes for use in found.values())

    def _note(self, path: str, use: Use) -> None:
        self._uses.learn(use)
        with self._lock:
            before = self._files.get(path)
            self._bytes += use.size_bytes - (before.size_bytes if before else 0)
            self._files[path] = use

    def _forget(self, path: str) -> None:
        with self._lock:
            if path in self._files:
                self._bytes -= self._files.pop(path).size_bytes

    def _unlink(self, path: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / path).unlink(missing_ok=True)
        self._forget(path)


def remove_files(folder: Path, keys: TenantKeys, owners: Iterable[VersionKey]) -> None:
    """Remove all files of these versions below ``folder``, for good. Raises StorageError."""
    with disk_errors(folder):
        for owner in owners:
            tenant, name = keys.owner(owner)
            if (folder / tenant / name).exists():
                shutil.rmtree(folder / tenant / name)
            with contextlib.suppress(OSError):  # others of the tenant stay
                (folder / tenant).rmdir()


def path_bytes(path: Path) -> int:
    """Bytes of a file; 0 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
