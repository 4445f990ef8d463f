"""A figure drawn into a PNG, with matplotlib's absence and an unwritable file in Longleaf's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import MissingDependencyError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def png(file: Path, *, dpi: int, remedy: str) -> Iterator[Figure]:
    """A figure of 6 by 3.6 inches to draw on, written to ``file`` at the end of the block.

    ``remedy`` is what to do if ``file`` cannot be written. Nothing is written if the block raises.
    Raises MissingDependencyError without matplotlib and StorageError for a file that cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "A plot needs the package 'matplotlib', which is not installed.",
            remedy="Install it with: pip install 'longleaf[eval]', or leave --plot out.",
        ) from error
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    yield figure
    try:
        figure.savefig(file, format="png", dpi=dpi)
    except OSError as error:
        raise StorageError(f"The plot cannot be written to {file}: {error}", remedy=remedy) from error
