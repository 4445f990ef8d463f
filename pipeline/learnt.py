"""The files of what an embedder has learnt: ``embedder/<plugin>/`` of a data directory.

``name`` there is what the present statistics are called, and ``statistics-<name>.npz`` are they, and those
before. The name stands in the fingerprint of vectors made with them as ``<plugin>=<name>``, so that a
collection tells which it was made with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import durable
from pipeline.errors import ConflictError

FOLDER = "embedder"

_NAME = "name"


@dataclass(frozen=True, slots=True)
class LearntFile:
    """Statistics of one plugin by their name."""

    plugin: str
    name: str
    file: Path


def present_name(folder: Path) -> str:
    """What the statistics of an embedder are called, or will be; empty before there is a name."""
    file = folder / _NAME
    return file.read_text("ascii").strip() if file.exists() else ""


def name_it(folder: Path, name: str) -> None:
    """From now on they are called so."""
    folder.mkdir(parents=True, exist_ok=True)
    durable.replace(folder / _NAME, name.encode())


def statistics(folder: Path, name: str) -> Path:
    """Their file, whether it is there or not."""
    own, old = folder / f"statistics-{name}.npz", folder / "statistics.npz"
    return own if own.exists() or not old.exists() else old  # which was there before names were in names


def keep(folder: Path, name: str, content: bytes) -> None:
    """Write statistics, whole and on disk; those that are there already under this name stay."""
    folder.mkdir(parents=True, exist_ok=True)
    durable.create(folder / f"statistics-{name}.npz", content)


def made_with(root: Path, fingerprint: str) -> LearntFile | None:
    """The statistics below ``root`` that vectors of this fingerprint were made with, if it has them."""
    for folder in (root / FOLDER).glob("*"):
        name = _named(fingerprint, folder.name)
        if name and (file := statistics(folder, name)).exists():
            return LearntFile(folder.name, name, file)
    return None


def take_over(root: Path, found: LearntFile, fingerprints: Iterable[str]) -> None:
    """Make them those of ``root``, where there are collections of these ``fingerprints``.

    Raises ConflictError for others there; a name without statistics that no collection has is none.
    """
    folder = root / FOLDER / found.plugin
    name = present_name(folder)
    used = statistics(folder, name).exists() or name in {_named(each, found.plugin) for each in fingerprints}
    if name and name != found.name and used:
        raise ConflictError(
            f"The vectors were made with what {found.plugin!r} had learnt elsewhere ({found.name}); "
            f"{folder} has something else ({name}).",
            remedy="Import into a data folder of its own with --data. Or move that folder away, import "
            "again, and then run `longleaf reindex` for every other collection.",
        )
    keep(folder, found.name, found.file.read_bytes())
    name_it(folder, found.name)


def _named(fingerprint: str, plugin: str) -> str:
    """What a fingerprint calls the statistics of a plugin; empty if it names none that can be a file's."""
    options = (option.partition("=") for option in fingerprint.split(" "))
    return next((value for key, _, value in options if key == plugin and value.isalnum()), "")
