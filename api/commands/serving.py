"""``longleaf serve``: the HTTP service."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.frame import Run, command


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "serve")(serve)


def serve(
    run: Run,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
) -> None:
    """Serve the HTTP API until stopped. Without a key it listens on this machine only.

    Example: longleaf serve --host 127.0.0.1 --port 8000
    """
    run.flags.update({"server.host": host, "server.port": port})
    settings = run.settings

    import uvicorn

    from api.app import create_app
    from api.keys import KeyRing

    app = create_app(settings)
    keyed = KeyRing(settings.data).required
    run.note(
        "Every request needs a key."
        if keyed
        else "Single-user mode: no key exists, so only this machine is served, and without asking who it is."
    )
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        server_header=False,
        access_log=False,
        log_level="info",
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=20,
    )
    uvicorn.Server(config).run()
