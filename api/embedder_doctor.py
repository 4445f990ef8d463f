"""``longleaf doctor embedder``: how far the configured embedder reaches, before a corpus is indexed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from api.plots import png
from api.sections import PACKAGES
from pipeline import plugins
from pipeline.errors import InvalidRequestError, StorageError
from pipeline.passkeys import EFFECTIVE, Reach
from pipeline.seams import Embedder, Learner

if TYPE_CHECKING:
    from api.sections import Settings

_ANOTHER_FILE = "Name another file with --plot."
_SAMPLE = (
    "The tenant shall pay the rent on the first day of each month.",
    "A duck swims on the lake and dives for weed.",
    "Traffic first crossed the bridge in the spring of 1932.",
    "Rising rates reduced the company's net income by four percent.",
    "The vaccine is injected into the muscle of the upper arm.",
    "Who appoints the trustee?",
    "Why was the meeting postponed?",
    "How is the vaccine given?",
    "When was the bridge opened?",
    "What does the parser return?",
    "Of all metals, silver conducts electricity best.",
    "The court upheld the ruling of the lower instance.",
)


@contextmanager
def embedder_of(settings: Settings) -> Iterator[Embedder]:
    """The configured embedder, to be measured.

    One that learns from documents works with a copy of what it has learnt: what it may learn from the texts
    of a measurement is forgotten afterwards.
    """
    options = settings.plugin_options("embedder")
    with TemporaryDirectory(prefix="longleaf-") as folder:
        learnt = options.get("statistics")
        if learnt is not None:
            options["statistics"] = Path(folder)
            if Path(learnt).is_dir():
                shutil.copytree(learnt, folder, dirs_exist_ok=True)
        yield plugins.load(PACKAGES["embedder"], settings.embedder.name, **options)


def notes(settings: Settings, embedder: Embedder) -> Iterator[str]:
    """What is worth knowing beside the numbers: a method that cannot reach, a number format that moves."""
    warning = getattr(embedder, "warning", "")
    if warning:
        yield warning
    if isinstance(embedder, Learner) and not embedder.has_learnt:
        yield "It has learnt from no documents yet: here it learns from the texts measured, and forgets them."
    options = settings.plugin_options("embedder")
    config = plugins.configure(PACKAGES["embedder"], settings.embedder.name, **options)
    dtype = getattr(config, "dtype", "float32")
    if dtype != "float32":
        exact = plugins.load(PACKAGES["embedder"], settings.embedder.name, **{**options, "dtype": "float32"})
        yield agreement(embedder, exact, dtype)


def agreement(embedder: Any, exact: Any, dtype: str) -> str:  # noqa: ANN401 - embedders
    """How near a number format is to float32, in vectors and in the order of neighbours."""
    rough, fine = (each.embed_queries(_SAMPLE).vectors for each in (embedder, exact))
    cosine = float((rough * fine).sum(1).min())
    orders = [np.argsort(-(vectors @ vectors.T), axis=1, kind="stable") for vectors in (rough, fine)]
    same = int((orders[0] == orders[1]).all(1).sum())
    return (
        f"dtype {dtype}: cosine with float32 at least {cosine:.5f}; all neighbours of {same} of "
        f"{len(_SAMPLE)} texts in the same order"
    )


def check_plot(file: Path) -> None:
    """Before work is done for it: raise InvalidRequestError for a plot that is not to be a PNG, and
    StorageError for one that could not be written."""
    if file.suffix.lower() != ".png":
        raise InvalidRequestError(
            f"The plot is a PNG, and {str(file)!r} does not end in .png.",
            remedy="Name a file that does with --plot.",
        )
    target = file if file.exists() else file.absolute().parent
    if file.is_dir() or not target.exists() or not os.access(target, os.W_OK):
        raise StorageError(f"The plot cannot be written to {file}.", remedy=_ANOTHER_FILE)


def plot(reached: Sequence[Reach], title: str, file: Path) -> None:
    """Both curves over the length, as PNG.

    Raises MissingDependencyError without matplotlib and StorageError for a file that cannot be written.
    """
    with png(file, dpi=150, remedy=_ANOTHER_FILE) as figure:
        axes = figure.subplots()
        lengths = [reach.tokens for reach in reached]
        for name, label in (("unit", "best unit"), ("document", "one vector a document")):
            axes.plot(lengths, [getattr(reach, name) for reach in reached], marker="o", label=label)
        axes.axhline(EFFECTIVE, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("tokens")
        axes.set_ylabel("passkeys found first")
        axes.set_title(title, fontsize=9)
        axes.legend()
