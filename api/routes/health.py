"""Whether the process lives, and whether it can serve. Neither needs a key."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.service import Running

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """Always the same while the process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """``parts`` gives the state of each dependency: "ok", "loading" or what is wrong with it."""

    status: str
    parts: dict[str, str]


@router.get("/livez", summary="The process answers")
async def livez() -> Liveness:
    """200 as long as the event loop runs."""
    return Liveness()


@router.get("/readyz", summary="Searches can be served", responses={503: {"model": Readiness}})
async def readyz(running: Running, response: Response) -> Readiness:
    """503 until every part that a search needs is loaded."""
    parts = running.ready()
    ready = all(state == "ok" for state in parts.values())
    if not ready:
        response.status_code = 503
    return Readiness(status="ok" if ready else "unavailable", parts=parts)
