"""Whether the process lives, and whether it can serve. Neither needs a key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.callers import IN_SCOPE
from api.service import Running, without_words

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """Always the same while the process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """``parts`` gives the state of each dependency: "ok", "loading", or what is wrong with it; those who
    send no key are told "failed" and no more."""

    status: str
    parts: dict[str, str]


@router.get("/livez", summary="The process answers")
async def livez() -> Liveness:
    """200 as long as the event loop runs."""
    return Liveness()


@router.get("/readyz", summary="Searches can be served", responses={503: {"model": Readiness}})
async def readyz(request: Request, running: Running, response: Response) -> Readiness:
    """503 until every part that a search needs can be used; answers can do without a language model."""
    parts = await running.operating.run(request.receive, lambda _: running.check())
    ready = all(state == "ok" for part, state in parts.items() if part != "language_model")
    if request.scope[IN_SCOPE] is None:
        parts = {part: without_words(state) for part, state in parts.items()}
    if not ready:
        response.status_code = 503
    return Readiness(status="ok" if ready else "unavailable", parts=parts)
