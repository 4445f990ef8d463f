"""How cached contexts are kept and used: settings, what a request may override, what a calibration found.

Importing this is cheap: no model library is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import ConfigurationError, InvalidRequestError

ContextMode = Literal["sequential", "prefix", "ape", "auto"]
BuildPolicy = Literal["ingestion", "first_use", "never"]

MOST_ATTENDED = 256
MOST_CANDIDATES = 1_000

_PUBLISHED_TEMPERATURE = 0.9
_PUBLISHED_SCALE = 0.9


@dataclass(frozen=True, slots=True)
class ContextsConfig:
    """How the language model reads passages, and what of it is kept."""

    mode: ContextMode = "prefix"
    """`sequential`; `prefix` (same beginnings once, lossless); `ape` (cached passages); `auto`."""
    build: BuildPolicy = "first_use"
    """When states are built: `ingestion` (in the background), `first_use`, or `never`."""
    memory_bytes: int = 1024 * 1024 * 1024
    """Most bytes of states in memory (of the device that runs the model)."""
    disk_bytes: int = 8 * 1024 * 1024 * 1024
    """Most bytes of states on disk, under the data folder; 0 keeps none."""
    format: Literal["native", "float16", "bfloat16", "int8", "int4"] = "native"
    """How states are stored: `native` is exact, `int8` and `int4` are smaller and lose a little."""
    temperature: float | None = None
    """Attention temperature over cached passages; null takes the calibration's."""
    scale: float | None = None
    """Scale of the passages' share of attention; null takes the calibration's."""
    attended: int | None = None
    """Most passages attended of those found; null takes the calibration's."""
    tolerance_nats: float = 0.05
    """Loss per answer token that `auto` accepts from a calibrated mode."""
    guard_share: float = 0.02
    """Share of `ape` answers that are compared with sequential reading in the background."""
    guard_nats: float = 0.5
    """Mean difference per token of compared answers beyond which `ape` is no longer used."""

    def __post_init__(self) -> None:
        choices = (("mode", ContextMode), ("build", BuildPolicy))
        for name, allowed in choices:
            if getattr(self, name) not in get_args(allowed):
                raise ConfigurationError(
                    f"contexts.{name} is {getattr(self, name)!r}.",
                    remedy=f"Choose from: {', '.join(get_args(allowed))}.",
                )
        rules = (
            ("memory_bytes", self.memory_bytes >= 1, "1 or more"),
            ("disk_bytes", self.disk_bytes >= 0, "0 or more"),
            ("temperature", self.temperature is None or 0 < self.temperature <= 10, "above 0, at most 10"),
            ("scale", self.scale is None or 0 < self.scale <= 10, "above 0, at most 10"),
            (
                "attended",
                self.attended is None or 1 <= self.attended <= MOST_ATTENDED,
                f"1 to {MOST_ATTENDED}",
            ),
            ("tolerance_nats", self.tolerance_nats >= 0, "0 or more"),
            ("guard_share", 0 <= self.guard_share <= 1, "between 0 and 1"),
            ("guard_nats", self.guard_nats >= 0, "0 or more"),
        )
        for name, is_right, rule in rules:
            if not is_right:
                raise ConfigurationError(f"contexts.{name} is {getattr(self, name)}.", remedy=f"Set {rule}.")


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """What one request asks for; None takes the configuration's or the calibration's value."""

    mode: ContextMode | None = None
    temperature: float | None = None
    scale: float | None = None
    attended: int | None = None

    def check(self) -> None:
        """Raise InvalidRequestError for a value that makes no sense, naming it."""
        rules = (
            ("context", self.mode, self.mode is None or self.mode in get_args(ContextMode), ContextMode),
            ("temperature", self.temperature, _none_or_within(self.temperature), "above 0 and at most 10"),
            ("scale", self.scale, _none_or_within(self.scale), "above 0 and at most 10"),
            (
                "attended",
                self.attended,
                self.attended is None or 1 <= self.attended <= MOST_ATTENDED,
                f"1 to {MOST_ATTENDED}",
            ),
        )
        for name, value, is_right, rule in rules:
            if not is_right:
                told = rule if isinstance(rule, str) else f"one of {', '.join(get_args(rule))}"
                raise InvalidRequestError(f"{name} is {value!r}.", remedy=f"It must be {told}.")


NO_OPTIONS = ContextOptions()
"""A request that leaves everything to settings and calibration."""


@dataclass(frozen=True, slots=True)
class ContextCalibration:
    """What was measured for the weights with this digest.

    ``loss_nats`` is the mean log-probability a token of the reference answer that cached passages cost
    against sequential reading, with the ends of its 95 % interval. ``heads`` are (layer, head) pairs that
    find the passage that answers; ``weight`` is their share against the retriever's score.
    """

    model: str
    revision: str
    temperature: float = _PUBLISHED_TEMPERATURE
    scale: float = _PUBLISHED_SCALE
    attended: int | None = None
    heads: tuple[tuple[int, int], ...] = ()
    weight: float = 0.0
    loss_nats: tuple[float, float, float] | None = None
    questions: int = 0
    pairs: str = ""

    @property
    def most_loss_nats(self) -> float:
        """The unfavourable end of the loss's interval; infinite where it was not measured."""
        return self.loss_nats[2] if self.loss_nats else float("inf")

    def check(self, model: str, revision: str) -> None:
        """Raise ConfigurationError if this was measured with other weights."""
        if revision != self.revision:
            raise ConfigurationError(
                f"The calibration of contexts was made for {self.model} ({self.revision[:16]}), "
                f"but the model is {model} ({revision[:16]}).",
                remedy="Run `longleaf calibrate lm` for this model.",
            )


@dataclass(frozen=True, slots=True)
class Encoding:
    """The values one request is served with."""

    temperature: float
    scale: float
    attended: int | None


def settled(
    config: ContextsConfig, options: ContextOptions, calibration: ContextCalibration | None
) -> Encoding:
    """The request's values over the configuration's over the calibration's over the published ones."""
    options.check()
    found = calibration or ContextCalibration("", "")
    return Encoding(
        options.temperature or config.temperature or found.temperature,
        options.scale or config.scale or found.scale,
        options.attended or config.attended or found.attended,
    )


def _none_or_within(value: float | None) -> bool:
    return value is None or 0 < value <= 10
