"""Every request is timed, counted, logged and traced, by its route's template and never by its path."""

from __future__ import annotations

import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.audit import AuditLog
from api.callers import IN_SCOPE, Caller
from api.telemetry import Telemetry
from pipeline.records import derived_id

_log = logging.getLogger("longleaf.requests")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ASKING = ("/search", "/answer", "/chat/completions", "/embeddings", "/rerank")
UNROUTED = "unrouted"


class Observer:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, audit: AuditLog) -> None:
        self._app = app
        self._telemetry = telemetry
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        began = time.perf_counter()
        status, sent_bytes = 499, 0  # unless an answer begins, the client has left

        async def noted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        with self._telemetry.tracing.request(method, headers) as told:
            try:
                await self._app(scope, receive, noted)
            finally:
                seconds = time.perf_counter() - began
                route = getattr(scope.get("route"), "path", UNROUTED)
                told |= {"http.route": route, "http.response.status_code": status}
                self._telemetry.metrics.request(method, route, status, seconds)
                caller: Caller | None = scope.get(IN_SCOPE)
                who = {"key": caller.key, "tenant": caller.tenant} if caller else {"key": "", "tenant": ""}
                line = {
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 6),
                    "sent_bytes": sent_bytes,
                    "request_id": request_id,
                    **who,
                }
                _log.log(
                    logging.DEBUG if route in ("/livez", "/readyz") else logging.INFO, "request", extra=line
                )
                if status in (401, 403) or (method in _CHANGES and not route.endswith(_ASKING)):
                    self._note(scope, line)

    def _note(self, scope: Scope, line: dict[str, object]) -> None:
        """A change, or a refusal, for the audit log."""
        names = scope.get("path_params", {})
        caller: Caller | None = scope.get(IN_SCOPE)
        entry = {key: line[key] for key in ("method", "route", "status", "request_id", "key", "tenant")}
        if caller and "collection" in names:
            entry["collection"] = derived_id(caller.tenant, names["collection"])
            if "document_id" in names:
                entry["document"] = derived_id(caller.tenant, names["collection"], names["document_id"])
        client = scope.get("client")
        self._audit.note(client=client[0] if client else "", **entry)
