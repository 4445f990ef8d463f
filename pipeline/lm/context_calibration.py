"""What was found out about cached contexts of a model: stored, shipped, and refused for other weights."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.lm.context_options import ContextCalibration
from pipeline.originals import disk_errors

FORMAT = 1
_DIGEST_CHARS = 16


def find(model: str, revision: str, folder: Path | None = None) -> ContextCalibration | None:
    """The calibration of these weights: one made here (in ``folder``), else the one Longleaf comes with,
    else None. Raises ConfigurationError if a file under their digest was made for others or is damaged."""
    name = _name(revision)
    places: list[Any] = [resources.files("pipeline.lm") / "calibrations" / name]
    if folder is not None:
        places.insert(0, folder / name)
    for place in places:
        if place.is_file():
            found = from_json(place.read_text("utf-8"), str(place))
            found.check(model, revision)
            return found
    return None


def write(calibration: ContextCalibration, folder: Path) -> Path:
    """Store under the digest of the weights; whole or not at all. Raises StorageError."""
    path = folder / _name(calibration.revision)
    temporary = path.with_suffix(".tmp")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(to_json(calibration), "utf-8")
        temporary.replace(path)
    return path


def to_json(calibration: ContextCalibration) -> str:
    """As it is stored."""
    return json.dumps({**asdict(calibration), "format": FORMAT}, indent=1) + "\n"


def from_json(text: str, where: str = "a calibration of contexts") -> ContextCalibration:
    """Back from what was stored. Raises ConfigurationError naming ``where`` and what is wrong."""
    try:
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        values["heads"] = tuple((int(layer), int(head)) for layer, head in values["heads"])
        if values["loss_nats"] is not None:
            mean, low, high = values["loss_nats"]
            values["loss_nats"] = (float(mean), float(low), float(high))
        unknown = values.keys() - {field.name for field in fields(ContextCalibration)}
        if unknown:
            raise ValueError(f"it has unknown fields: {', '.join(sorted(unknown))}")
        found = ContextCalibration(**values)
        if not (0 < found.temperature <= 10 and 0 < found.scale <= 10 and 0 <= found.weight <= 1):
            raise ValueError("its temperature, scale or weight makes no sense")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{where} is not a calibration of contexts: {error}",
            remedy="Run `longleaf calibrate lm` again.",
        ) from error
    return found


def _name(revision: str) -> str:
    return f"{revision[:_DIGEST_CHARS]}.contexts.json"
