"""Numbers for Prometheus. They are sums over all tenants, so a key for them opens nothing else."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.callers import Anyone
from api.metrics import CONTENT_TYPE
from api.problems import documented
from api.service import Running
from pipeline.errors import ForbiddenError

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format 0.0.4"},
        **documented(),
    },
)
async def metrics(request: Request, running: Running, asking: Anyone) -> Response:
    """Needs a key with access `operate`; in single-user mode this machine needs none."""
    if not asking.operates:
        raise ForbiddenError(
            "This key does not open the metrics.",
            remedy="Make one with `longleaf keys create NAME --access operate`.",
        )
    text = await running.operating.run(request.receive, lambda _: running.telemetry.metrics.exposition())
    return Response(text, headers={"Content-Type": CONTENT_TYPE})
