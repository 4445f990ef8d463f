"""A server on a port of its own, as `longleaf serve` runs it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from api.app import create_app
from api.build import Longleaf
from api.listening import server_of


@contextmanager
def serving(longleaf: Longleaf) -> Iterator[str]:
    """Its URL; stopped at the end."""
    with running(longleaf) as (url, _):
        yield url


@contextmanager
def running(longleaf: Longleaf) -> Iterator[tuple[str, uvicorn.Server]]:
    """Its URL and the server, in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = server_of(create_app(longleaf.settings, longleaf), longleaf.settings.server)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join()
