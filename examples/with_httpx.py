"""Upload, search, ask and stream with httpx.

LONGLEAF_URL=http://127.0.0.1:8000 LONGLEAF_KEY=id.secret python examples/with_httpx.py
"""

from __future__ import annotations

import json
import os

import httpx

LEASE = (
    "The tenant of the mill pays forty pounds a year to the owner. "
    "Either party may end the lease with three months' notice. "
    "The miller keeps the wheel and the sluice in repair at his own cost."
)
QUESTION = "With how much notice may either party end the lease?"


def main() -> None:
    """Everything, in a collection that is dropped at the end."""
    url = os.environ.get("LONGLEAF_URL", "http://127.0.0.1:8000")
    headers = {"Authorization": f"Bearer {os.environ.get('LONGLEAF_KEY', 'none')}"}
    books = "/v1/collections/httpx-example"
    with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
        document = {"id": "lease", "title": "Lease of the mill", "text": LEASE}
        client.post(f"{books}/documents", json={"documents": [document]}).raise_for_status()

        found = client.post(f"{books}/search", json={"query": QUESTION, "top_k": 1}).raise_for_status().json()
        print("best passage:", found["hits"][0]["text"])

        answer = client.post(f"{books}/answer", json={"query": QUESTION}).raise_for_status().json()
        print("answer:", answer["text"])
        for statement in answer["statements"]:
            for citation in statement["citations"]:
                place = f"{citation['document_id']}[{citation['start']}:{citation['end']}]"
                print("  stands on", place, "-", citation["quote"])

        with client.stream("POST", f"{books}/answer", json={"query": QUESTION, "stream": True}) as stream:
            stream.raise_for_status()
            event = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and event == "token":
                    print("streamed:", json.loads(line.removeprefix("data: "))["text"])
        client.delete(books).raise_for_status()


if __name__ == "__main__":
    main()
