"""The service under load, beside the same server with a handler that does nothing.

So many clients search, so many read streamed answers, all as fast as they are answered; a refused one
comes again after what `Retry-After` says, less a random half. Meanwhile health is asked. Server and
clients share the machine: on two cores the clients' own work is part of every number.

    python -m benchmarks.load --searches 200 --streams 20 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import heading

ROOT = Path(__file__).parent.parent
QUARTERS = 4
QUESTIONS = [
    "Who may dismiss a standing trustee?",
    "What does the solely incidental prong require?",
    "When must the annual report be filed?",
    "What compensation may a trustee receive?",
    "What is investment discretion?",
]
SMALL = {
    "LONGLEAF_EMBEDDER__NAME": "hashing",
    "LONGLEAF_INDEXER__NAME": "exact",
    "LONGLEAF_LANGUAGE_MODEL__SPEC": "none",
}
NOOP = """
import socket, sys
from api.listening import server_of
from api.sections import ServerSettings

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    body = b'{"hits": []}' if b"stream" not in scope["query_string"] else b"event: done\\ndata: {}\\n\\n"
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})

listener = socket.create_server(("127.0.0.1", 0), backlog=256)
print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
server_of(app, ServerSettings()).run(sockets=[listener])
"""


class Client:
    """One connection that is kept; HTTP/1.1 and no more than is needed, so that the client costs little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes, float]:
        """Status, headers, body, and the seconds until the head of the answer."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        began = time.perf_counter()
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        first = time.perf_counter() - began
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        content = b"".join([piece async for piece in self._body(headers)])
        if headers.get("connection") == "close":
            self._writer.close()
        return int(lines[0].split()[1]), headers, content, first

    async def _body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        assert self._reader is not None
        if "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()


class Load:
    """What was asked, and what came of it."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.processor_seconds = 0.0
        self.quarters: dict[str, list[int]] = defaultdict(lambda: [0] * QUARTERS)

    async def search(self) -> None:
        """One client that searches."""
        await self._loop("search", "/v1/collections/default/search", lambda q: {"query": q, "top_k": 5})

    async def stream(self) -> None:
        """One client that reads answers."""
        await self._loop(
            "stream", "/v1/collections/default/answer?stream", lambda q: {"query": q, "stream": True}
        )

    async def _loop(self, kind: str, path: str, body: Any) -> None:
        client = Client(self._port)
        await asyncio.sleep(random.random())
        while time.monotonic() < self._until:
            asked = json.dumps(body(random.choice(QUESTIONS))).encode()
            began = time.perf_counter()
            try:
                status, headers, content, first = await client.ask("POST", path, asked)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.counts[f"{kind} {type(error).__name__}"] += 1
                client = Client(self._port)
                continue
            if status == 200 and (kind == "search" or b"event: done" in content):
                self.counts[f"{kind} 200"] += 1
                gone = 1 - (self._until - time.monotonic()) / self._seconds
                self.quarters[kind][min(int(gone * QUARTERS), QUARTERS - 1)] += 1
                self.seconds[kind].append(time.perf_counter() - began)
                self.seconds[f"{kind}, head"].append(first)
            elif status in (429, 503):
                self.counts[f"{kind} {status}"] += 1
                await asyncio.sleep(int(headers["retry-after"]) * random.uniform(0.5, 1.0))
            else:
                self.counts[f"{kind} {status} UNEXPECTED"] += 1

    async def health(self) -> None:
        """Asks whether the service lives, ten times a second."""
        client = Client(self._port)
        while time.monotonic() < self._until:
            began = time.perf_counter()
            status, *_ = await client.ask("GET", "/livez")
            self.counts[f"health {status}"] += 1
            self.seconds["health"].append(time.perf_counter() - began)
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """The port and process of a server."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"The server did not start: {said}")
            said += line
        # Somebody has to read what it goes on to say.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(found[1]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def memory(process: psutil.Process) -> float:
    """MiB of the process and its children."""
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family if member.is_running()) / 2**20


def worked(process: psutil.Process) -> float:
    """Processor seconds of the process and its children so far."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family if member.is_running())


async def run(port: int, process: psutil.Process, given: argparse.Namespace) -> tuple[Load, list[float]]:
    """Load for the time given, and memory at its start, each quarter and end."""
    load = Load(port, given.seconds)
    held = [memory(process)]
    before = worked(process)

    async def weigh() -> None:
        for _ in range(QUARTERS):
            await asyncio.sleep(given.seconds / QUARTERS)
            held.append(memory(process))

    clients = [load.search() for _ in range(given.searches)] + [load.stream() for _ in range(given.streams)]
    tasks = [asyncio.ensure_future(work) for work in (*clients, load.health(), weigh())]
    # Answers that are not finished soon after the end are left: many may still wait for their turn.
    done, late = await asyncio.wait(tasks, timeout=given.seconds + 2)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
    load.processor_seconds = worked(process) - before
    return load, held


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in seconds."""
    ordered = sorted(values)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 4) for p in (50, 95, 99)}


def told(name: str, load: Load, held: list[float], seconds: float) -> dict[str, Any]:
    """Print one server's numbers and give them."""
    print(f"\n{name}: {dict(sorted(load.counts.items()))}")
    rows = {kind: {"n": len(v), **quantiles(v)} for kind, v in load.seconds.items() if v}
    for kind, row in rows.items():
        rate = f"{row['n'] / seconds:8.1f}/s" if not kind.endswith("head") else " " * 10
        print(
            f"  {kind:14} {rate}  p50 {row['p50']:.4f}  p95 {row['p95']:.4f}  p99 {row['p99']:.4f}  n={row['n']}"
        )
    for kind, finished in load.quarters.items():
        print(f"  {kind:14} finished in each quarter of the time: {', '.join(map(str, finished))}")
    print(f"  processor      {load.processor_seconds:.1f} s of {os.cpu_count()} x {seconds:g} s")
    print(f"  memory MiB     {' -> '.join(f'{mib:.0f}' for mib in held)}")
    return {"counts": load.counts, "seconds": rows, "quarters": load.quarters, "memory_mib": held}


def main() -> None:
    """Both servers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", choices=["small", "default"], default="default")
    parser.add_argument("--data", type=Path, help="a folder that has the examples already, to save time")
    parser.add_argument("--service-only", action="store_true", help="without the server that does nothing")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    heading(
        f"{given.searches} searching clients, {given.streams} reading streams, {given.seconds:g} s, "
        f"models {given.models}, the three example documents"
    )
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("LONGLEAF_")}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = SMALL if given.models == "small" else {}
        data = str(given.data or folder)
        environment = {**inherited, "PYTHONPATH": str(ROOT), "LONGLEAF_DATA": data, **chosen}
        cli = [sys.executable, "-m", "api.cli"]
        documents = sorted(str(path) for path in (ROOT / "examples").glob("*.[pde]*") if path.suffix != ".py")
        subprocess.run(
            [*cli, "ingest", *documents], env=environment, check=True, cwd=ROOT, capture_output=True
        )
        with server([*cli, "serve", "--port", "0"], environment) as (port, process):
            asyncio.run(_ready(port))
            asyncio.run(_warm(port))
            load, held = asyncio.run(run(port, process, given))
        results["service"] = told("the service", load, held, given.seconds)
    if given.service_only:
        return
    with server([sys.executable, "-c", NOOP], {**inherited, "PYTHONPATH": str(ROOT)}) as (port, process):
        load, held = asyncio.run(run(port, process, given))
    results["no-op"] = told("the same server, nothing to do", load, held, given.seconds)
    rate = [results[name]["seconds"]["search"]["n"] for name in ("service", "no-op")]
    print(f"\nsearches answered, service to no-op: {rate[0] / rate[1]:.4f}")
    if given.out:
        given.out.write_text(json.dumps(results, indent=1))


async def _ready(port: int) -> None:
    client = Client(port)
    for _ in range(600):
        if (await client.ask("GET", "/readyz"))[0] == 200:
            return
        await asyncio.sleep(0.2)
    raise SystemExit("The service did not become ready.")


async def _warm(port: int) -> None:
    """One answer, so that the language model is loaded before anything is timed."""
    asked = json.dumps({"query": QUESTIONS[0], "stream": True}).encode()
    await Client(port).ask("POST", "/v1/collections/default/answer", asked)


if __name__ == "__main__":
    main()
