"""A route that takes what it declares and nothing else: JSON goes through :mod:`api.strict_json` before
anything looks at it, and a query parameter that the route does not know is refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api import strict_json
from api.problems import ProblemResponse, Refusal
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
        takes_body = takes_json or "requestBody" in (self.openapi_extra or {})
        parameters = sorted(_query_parameters(self.dependant))

        async def strict(request: Request) -> Response:
            _refuse_unknown(request, parameters)
            if takes_body:
                _refuse_encoded(request)
            if takes_json and not strict_json.is_named(request.headers.get("content-type", "")):
                raise HTTPException(415, "This route takes application/json.")
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except HTTPException as error:
                if isinstance(error.__cause__, InvalidRequestError):
                    raise error.__cause__ from None
                raise

        return strict


def _query_parameters(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_query_parameters, dependant.dependencies))


def _refuse_unknown(request: Request, known: Sequence[str]) -> None:
    """A parameter that is misspelt would otherwise have no effect, and nobody would know."""
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise RequestValidationError([{"loc": ("query", name), "msg": _no(name, known)} for name in unknown])


def _no(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:64].lower(), known, n=1, cutoff=0.5)
    if close:
        return f"There is no such parameter here; the nearest is {close[0]!r}"
    return f"Parameters here are: {', '.join(known)}" if known else "No parameter is taken here"


def _refuse_encoded(request: Request) -> None:
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise Refusal(
            ProblemResponse(
                415,
                "unsupported_media_type",
                f"The body's Content-Encoding is {coding[:40]!r}; no coding is taken.",
                remedy="Send it as it is, without Content-Encoding.",
                headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
            )
        )
