"""A route whose JSON body goes through :mod:`api.strict_json` before anything looks at it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api import strict_json
from pipeline.errors import InvalidRequestError


class StrictRequest(Request):
    """A request whose ``json`` refuses what strict_json refuses."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The parsed body. Raises InvalidRequestError."""
        depth = self.app.state.service.settings.server.max_json_depth
        return await strict_json.read(await self.body(), max_depth=depth)


class StrictRoute(APIRoute):
    """FastAPI would turn what ``json`` raises into a bare 400; it is kept here and raised after."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler over a :class:`StrictRequest`."""
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def strict(request: Request) -> Response:
            given = request.headers.get("content-type")
            if takes_json and given is not None and not _is_json(given):
                raise HTTPException(415, "This route takes application/json.")
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except Exception as error:
                if isinstance(error.__cause__, InvalidRequestError):
                    raise error.__cause__ from None
                raise

        return strict


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
