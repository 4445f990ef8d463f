"""What was measured about language models: which order and which heads serve each best."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request

from api.callers import Asking
from api.problems import documented
from api.routes.strict import StrictRoute
from api.service import Running
from pipeline.errors import StorageError

router = APIRouter(prefix="/v1/calibrations", tags=["models"], route_class=StrictRoute)


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """One calibration. ``origin`` tells those that Longleaf comes with from those made here; ``measured``
    is the calibration as it is stored, its numbers with their intervals."""

    id: str
    origin: Literal["shipped", "made here"]
    model: str
    revision: str
    measured: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CalibrationList:
    """Every calibration; one made here is used before a shipped one of the same weights."""

    calibrations: list[CalibrationRecord]


@router.get("", summary="List calibrations", responses=documented())
async def list_calibrations(request: Request, running: Running, asking: Asking) -> CalibrationList:
    """Those made here, then those that Longleaf comes with."""
    folder = running.settings.data / "calibrations"
    shipped = resources.files("pipeline.lm") / "calibrations"

    def work(_: object) -> CalibrationList:
        return CalibrationList([*_read(folder, "made here"), *_read(shipped, "shipped")])

    return await running.searching.run(request.receive, work)


def _read(folder: Path | Traversable, origin: Literal["shipped", "made here"]) -> Iterator[CalibrationRecord]:
    """Raises StorageError for one that is damaged."""
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".json"):
            continue
        try:
            measured = json.loads(file.read_text("utf-8"))
            yield CalibrationRecord(
                file.name.removesuffix(".json"),
                origin,
                str(measured["model"]),
                str(measured["revision"]),
                measured,
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"The calibration {file.name!r} cannot be read.", remedy="Make it again, or remove the file."
            ) from error
