"""Optimising a large shard aside: the engine goes on answering from the old one until the new one is ready.

The engine stands still while it optimises, for minutes where there are many vectors. So a copy of the shard
is optimised by another process, and the index's manifest then names the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from pipeline import errors

_PREFIX = "shard"


def new_name() -> str:
    """A name for another shard folder of an index."""
    return f"{_PREFIX}-{uuid.uuid4().hex[:12]}"


def remove_others(folder: Path, kept: str) -> None:
    """Remove shards of an index that its manifest does not name: an interrupted optimisation left them."""
    for path in folder.glob(f"{_PREFIX}*"):
        if path.name != kept:
            shutil.rmtree(path, ignore_errors=True)


def size_bytes(path: Path) -> int:
    """Bytes that the files below take of the disk."""
    return sum(f.stat().st_blocks * 512 for f in path.rglob("*") if f.is_file())


def has_room(shard: Path, reserve_bytes: int) -> bool:
    """Whether the disk takes a copy of the shard and what optimising it needs."""
    disk = os.statvfs(shard)
    return disk.f_bavail * disk.f_frsize >= 2 * size_bytes(shard) + reserve_bytes


def optimised_copy(source: Path, target: Path) -> None:
    """Copy a shard that nobody writes to and optimise the copy. Raises what the engine raised, with
    nothing left behind."""
    try:
        _copy(source, target)
        _optimise(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _copy(source: Path, target: Path) -> None:
    if sys.platform == "linux":  # the engine's files are mostly holes; a plain copy would fill them
        command = ["cp", "-r", "--reflink=auto", "--sparse=always", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            full = "No space left" in done.stderr
            kind: type[errors.LongleafError] = errors.DiskFullError if full else errors.StorageError
            raise kind(f"{source} cannot be copied: {done.stderr.strip()[:300]}.", remedy="Free space there.")
    else:
        shutil.copytree(source, target)


def _optimise(path: Path) -> None:
    watched, lifeline = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "indexers._edge_builder", str(watched), str(path)],
            pass_fds=(watched,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    finally:
        os.close(watched)
        os.close(lifeline)
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise errors.UnavailableError(
            f"The process that optimises the index died (exit status {done.returncode}); it said: "
            f"{done.stderr.strip()[-500:] or 'nothing'}",
            remedy="Try again; searches work meanwhile.",
        ) from error
    if "error" in answer:
        made: Callable[..., errors.LongleafError] = getattr(errors, answer["error"])
        raise made(answer["message"], remedy=answer["remedy"])
