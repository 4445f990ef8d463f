"""What a calibration found out about a model's attention: stored, shipped, refused for other weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConfigurationError, NotFoundError, StorageError
from pipeline.lm.signals import Signal

FORMAT = 1
AttentionOrder = Literal["attention_sorting", "found_in_the_middle"]
Placement = Literal["score", "reverse", "edges"]
_DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True)
class Fused:
    """A signal and how much it weighs against the retriever's scores (0 to 1)."""

    signal: Signal
    weight: float


@dataclass(frozen=True, slots=True)
class AtPosition:
    """How well the model answers with the passage that holds the answer at ``position`` (from 0).

    ``logprob`` is the mean log-probability a token of the reference answer; ``accuracy`` the share of
    questions whose greedy answer begins with the reference.
    """

    position: int
    logprob: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured once for a model. ``revision`` is the SHA-256 of its weights.

    ``auto`` is the order a request with ``auto`` gets; a pass to look at the passages first is worth its
    time only where it names an attention order. ``placement`` is where this model wants the best passage, and
    ``bias_pays`` whether it answers better with its attention biased by the retriever's scores.
    ``recall`` (R@1 by signal, on questions that took no part in fitting it) and ``logprobs`` (by order; of
    the bias, and of attention orders with it if it pays) are for people and for the table. ``gains`` are in
    log-probability, with 95 % intervals: of the bias over ``placement``, and of attention orders over the
    same, all with the bias if that pays. ``few_heads`` are at most ten that vote alike, for cached contexts.
    ``trials`` questions chose the heads; on ``scored`` of them the reference answers were scored.
    """

    model: str
    revision: str
    auto: Placement | AttentionOrder
    placement: Placement
    attention_sorting: Fused
    found_in_the_middle: Fused
    few_heads: Fused | None = None
    bias_pays: bool = False
    positions: tuple[AtPosition, ...] = ()
    recall: Mapping[str, float] = field(default_factory=dict)
    logprobs: Mapping[str, float] = field(default_factory=dict)
    gains: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    pairs: str = ""
    trials: int = 0
    scored: int = 0
    passages: int = 0
    dtype: str = "float32"
    format: int = FORMAT

    def fused(self, order: AttentionOrder) -> Fused:
        """The signal and weight of an attention order."""
        return self.attention_sorting if order == "attention_sorting" else self.found_in_the_middle

    def check(self, model: str, revision: str) -> None:
        """Raise ConfigurationError if this was measured with other weights."""
        if revision != self.revision:
            raise ConfigurationError(
                f"The calibration was made for {self.model} ({self.revision[:_DIGEST_CHARS]}), "
                f"but the model is {model} ({revision[:_DIGEST_CHARS]}).",
                remedy="Run `longleaf calibrate lm` for this model.",
            )


def find(model: str, revision: str, folder: Path | None = None) -> Calibration | None:
    """The calibration of these weights: one made here (in ``folder``), else the one Longleaf comes with,
    else None. Raises ConfigurationError if a file under their digest was made for others or is damaged.
    """
    name = f"{revision[:_DIGEST_CHARS]}.json"
    places = [resources.files("pipeline.lm") / "calibrations" / name]
    if folder is not None:
        places.insert(0, folder / name)
    for place in places:
        if place.is_file():
            found = from_json(place.read_text("utf-8"), str(place))
            found.check(model, revision)
            return found
    return None


def read(path: Path) -> Calibration:
    """A calibration from a file. Raises NotFoundError and ConfigurationError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(
            f"There is no calibration to be read in {path}: {error}", remedy="Run `longleaf calibrate lm`."
        ) from error
    return from_json(text, str(path))


def write(calibration: Calibration, folder: Path) -> Path:
    """Store under the digest of the weights; whole or not at all. Raises StorageError."""
    path = folder / f"{calibration.revision[:_DIGEST_CHARS]}.json"
    temporary = path.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(to_json(calibration), "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"The calibration cannot be stored in {folder}: {error}", remedy="Make the folder writable."
        ) from error
    return path


def to_json(calibration: Calibration) -> str:
    """As it is stored."""
    return json.dumps(asdict(calibration), indent=1) + "\n"


def from_json(text: str, where: str = "a calibration") -> Calibration:
    """Back from what was stored. Raises ConfigurationError naming ``where`` and what is wrong."""
    try:
        values: dict[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']}, this version reads {FORMAT}")
        for order in ("attention_sorting", "found_in_the_middle"):
            values[order] = _fused(values[order])
        if values.get("few_heads") is not None:
            values["few_heads"] = _fused(values["few_heads"])
        values["positions"] = tuple(AtPosition(**each) for each in values["positions"])
        values["gains"] = {name: tuple(gain) for name, gain in values["gains"].items()}
        calibration = Calibration(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{where} is not a calibration: {error}", remedy="Run `longleaf calibrate lm` again."
        ) from error
    return calibration


def _fused(values: dict[str, Any]) -> Fused:
    signal = dict(values["signal"])
    if signal["layers"] is not None:
        first, end = signal["layers"]
        signal["layers"] = (int(first), int(end))
    if signal["heads"] is not None:
        signal["heads"] = tuple((int(layer), int(head)) for layer, head in signal["heads"])
    if signal.get("weights") is not None:
        signal["weights"] = tuple(float(weight) for weight in signal["weights"])
    weight = float(values["weight"])
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight is {weight}, not between 0 and 1")
    return Fused(Signal(**signal), weight)
