"""``longleaf serve``: the HTTP service."""

from __future__ import annotations

import socket
import sys
from typing import Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command

SWITCH_SECONDS = 0.001


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "serve")(serve)
    command(app, "ready")(ready)


def serve(
    run: Run,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
) -> int | None:
    """Serve the HTTP API until stopped. Without a key it listens on this machine only.

    Example: longleaf serve --host 127.0.0.1 --port 8000
    """
    given = {"server.host": host, "server.port": port}
    run.flags.update({key: value for key, value in given.items() if value is not None})
    settings = run.settings
    from api.keys import KeyRing
    from api.security import refuse_open_door

    keys = KeyRing(settings.data)
    refuse_open_door(settings.server, keys)
    with _listen(settings.server.host, settings.server.port) as listener:
        run.longleaf.open_stores()

        from api.app import create_app
        from api.listening import server_of
        from api.logs import configure_logging

        configure_logging(settings.logging)
        # Threads at work hand the interpreter over this often: the event loop waits for it at every turn.
        sys.setswitchinterval(SWITCH_SECONDS)
        server = server_of(create_app(settings, run.longleaf), settings.server)
        run.note(
            "Every request needs a key."
            if keys.required
            else "Single-user mode: no key exists, so this machine is served without one, and no other."
        )
        run.note(f"Listening on {_address(listener)}; stop with Ctrl-C.", "bold")
        server.run(sockets=[listener])
        return None if server.started else FAILED


def ready(
    run: Run,
    url: Annotated[
        str | None, typer.Option(help="Where the service is; else this machine at server.port.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for its answer.")] = 4.0,
) -> int:
    """Whether a running service can serve: the health check of containers. Needs no key.

    Example: longleaf ready --url http://127.0.0.1:8000
    """
    import json
    import urllib.error
    import urllib.request

    place = url or f"http://127.0.0.1:{run.settings.server.port}"
    try:
        # S310: the address is the operator's own
        with urllib.request.urlopen(f"{place}/readyz", timeout=timeout) as answer:  # noqa: S310
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        said = {"status": "unavailable", "parts": {}}
        if error.headers.get_content_type() == "application/json":
            said = json.load(error)
    except (OSError, ValueError) as error:
        said = {"status": "unreachable", "parts": {"server": f"{type(error).__name__} at {place}"}}
    if run.json:
        run.emit(said)
    else:
        parts = ", ".join(f"{part}: {state}" for part, state in said["parts"].items())
        run.out.print(f"{said['status']} ({parts})" if parts else said["status"], soft_wrap=True)
    return DONE if said["status"] == "ok" else FAILED


def _listen(host: str, port: int) -> socket.socket:
    from pipeline.errors import UnavailableError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=256)
    except OSError as error:
        raise UnavailableError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            remedy="Choose another --port, or stop the program that has this one.",
        ) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
