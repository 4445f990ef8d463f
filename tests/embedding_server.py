"""An embedding server in this process: OpenAI's endpoint with Jina's late chunking, and TEI's four.

Vectors are those of the hashing embedder, so texts of the same words are near each other. ``Server.fail``
holds answers to give first; ``Server.seen`` what was asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from embedders.hashing import Config, HashingEmbedder

HASHING = HashingEmbedder(Config(dim=64))
WINDOW = 64


def vector(text: str) -> np.ndarray:
    return HASHING._embed([text])[0]


def tokens(text: str, special: bool) -> list[dict[str, Any]]:
    encoding = HASHING.encode(text)
    found = [
        {"id": int(i), "text": text[a:b], "special": False, "start": int(a), "stop": int(b)}
        for i, (a, b) in zip(encoding.ids, encoding.offsets.tolist(), strict=True)
    ]
    edge = {"id": 0, "text": "[CLS]", "special": True, "start": None, "stop": None}
    return [edge, *found, edge] if special else found


def token_vectors(text: str) -> list[list[float]]:
    """Each token's own vector and a tenth of the whole text's: what stands around it shows."""
    around = vector(text) / 10
    words = [vector(t["text"]) + around for t in tokens(text, special=False)]
    return [row.tolist() for row in (around, *words, around)]


class Server(ThreadingHTTPServer):
    """``fail`` holds (status, body, headers) of the next answers; ``nan`` spoils texts that contain it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fail: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[str, Any, dict[str, str]]] = []
        self.nan = ""
        self.pooling = "mean"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def row(self, text: str) -> list[float]:
        found = vector(text).tolist()
        return [float("nan"), *found[1:]] if self.nan and self.nan in text else found


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        server = self.server
        server.seen.append((self.path, body, dict(self.headers)))
        status, content, headers = 200, None, {}
        if server.fail:
            status, content, headers = server.fail.pop(0)
        elif self.path == "/v1/embeddings":
            content = self._openai(body)
        elif self.path == "/info":
            kind = {"embedding": {"pooling": server.pooling}}
            content = {
                "model_id": "tiny/hashing",
                "model_sha": "abc",
                "max_input_length": WINDOW,
                "model_type": kind,
            }
        elif self.path == "/tokenize":
            content = [tokens(text, body["add_special_tokens"]) for text in body["inputs"]]
        elif self.path == "/embed":
            content = [server.row(text) for text in body["inputs"]]
        elif self.path == "/embed_all":
            content = [token_vectors(text) for text in body["inputs"]]
        else:
            status, content = 404, {"error": "not here"}
        sent = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def _openai(self, body: dict[str, Any]) -> dict[str, Any]:
        texts, width = body["input"], body.get("dimensions", 64)
        rows = [self.server.row(text) for text in texts]
        if body.get("late_chunking"):
            around = np.mean(rows, axis=0)
            rows = [(np.array(row) + around / 2).tolist() for row in rows]
        data = [{"object": "embedding", "index": i, "embedding": row[:width]} for i, row in enumerate(rows)]
        return {"object": "list", "model": body["model"], "data": data[::-1], "usage": {"total_tokens": 1}}


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
