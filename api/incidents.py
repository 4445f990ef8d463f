"""What happens to a defect: the client gets a number, the log the place, and nobody the content."""

from __future__ import annotations

import asyncio
import logging
import traceback
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.envelopes import dressed
from api.problems import ProblemResponse, problem_of
from api.work import stopping

_FRAMES = 8
_log = logging.getLogger("longleaf.http")


class Incidents:
    """Turns a defect into a problem document and a log entry: where it happened, and no value, because
    the words of an exception may be words of a document. A request that is cancelled because the server
    stops is no defect, and is told so."""

    def __init__(self, app: ASGIApp, *, retry_after_seconds: int) -> None:
        self._app = app
        self._retry_after_seconds = retry_after_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer for whatever comes back raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except (ConnectionError, HTTPException):  # the gate's own, of the body
            raise
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not begun:
                answer = problem_of(stopping(), self._retry_after_seconds)
                answer.headers["Connection"] = "close"  # the rest of a body may still be on its way
                await dressed(answer, scope["path"])(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last place where it can be answered
            incident = uuid4().hex
            frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
            where = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
            _log.error("incident %s: %s at %s", incident, type(error).__name__, where)
            if not begun:
                remedy = f"Report incident {incident}; the service's log has it."
                answer = ProblemResponse(
                    500, "internal", "The service failed.", remedy=remedy, incident=incident
                )
                await dressed(answer, scope["path"])(scope, receive, send)
