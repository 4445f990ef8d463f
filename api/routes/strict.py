"""A route whose JSON body goes through :mod:`api.strict_json` before anything looks at it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api import strict_json
from pipeline.errors import InvalidRequestError


class StrictRequest(Request):
    """A request whose ``json`` refuses what strict_json refuses."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The parsed body. Raises InvalidRequestError."""
        depth = self.app.state.service.settings.server.max_json_depth
        return strict_json.loads(await self.body(), max_depth=depth)


class StrictRoute(APIRoute):
    """FastAPI would turn what ``json`` raises into a bare 400; it is kept here and raised after."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler over a :class:`StrictRequest`."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except Exception as error:
                if isinstance(error.__cause__, InvalidRequestError):
                    raise error.__cause__ from None
                raise

        return strict
