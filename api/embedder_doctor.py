"""``longleaf doctor embedder``: how far the configured embedder reaches, before a corpus is indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.plots import png
from api.sections import PACKAGES
from pipeline import plugins
from pipeline.passkeys import EFFECTIVE, Reach

if TYPE_CHECKING:
    from api.build import Longleaf

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


def notes(longleaf: Longleaf) -> Iterator[str]:
    """What is worth knowing beside the numbers: a method that cannot reach, a number format that moves."""
    warning = getattr(longleaf.embedder, "warning", "")
    if warning:
        yield warning
    settings = longleaf.settings
    options = settings.plugin_options("embedder")
    config = plugins.configure(PACKAGES["embedder"], settings.embedder.name, **options)
    dtype = getattr(config, "dtype", "float32")
    if dtype != "float32":
        exact = plugins.load(PACKAGES["embedder"], settings.embedder.name, **{**options, "dtype": "float32"})
        yield agreement(longleaf.embedder, exact, dtype)


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


def plot(reached: Sequence[Reach], title: str, file: Path) -> None:
    """Both curves over the length, as PNG.

    Raises MissingDependencyError without matplotlib and StorageError for a file that cannot be written.
    """
    with png(file, dpi=150, remedy="Name another file with --plot.") as figure:
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
