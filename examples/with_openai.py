"""Ask with the public OpenAI client: the model's name is a collection.

LONGLEAF_URL=http://127.0.0.1:8000 LONGLEAF_KEY=id.secret python examples/with_openai.py
"""

from __future__ import annotations

import os

import httpx
import openai

LEASE = (
    "The tenant of the mill pays forty pounds a year to the owner. "
    "Either party may end the lease with three months' notice."
)


def main() -> None:
    """Chat, stream and embed, in a collection that is dropped at the end."""
    url = os.environ.get("LONGLEAF_URL", "http://127.0.0.1:8000")
    key = os.environ.get("LONGLEAF_KEY", "none")
    collection = f"{url}/v1/collections/openai-example"
    headers = {"Authorization": f"Bearer {key}"}
    document = {"id": "lease", "title": "Lease of the mill", "text": LEASE}
    httpx.post(
        f"{collection}/documents", json={"documents": [document]}, headers=headers, timeout=120
    ).raise_for_status()

    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        messages = [{"role": "user", "content": "With how much notice may the lease be ended?"}]
        made = client.chat.completions.create(model="openai-example", messages=messages)
        message = made.choices[0].message
        print("answer:", message.content)
        for annotation in message.annotations or []:
            print("  stands on", annotation.url_citation.title, annotation.url_citation.url)

        # What OpenAI's interface has no word for goes into `extra_body`.
        stream = client.chat.completions.create(
            model="openai-example",
            messages=messages,
            stream=True,
            extra_body={"longleaf": {"mode": "extractive", "top_k": 5}},
        )
        print("streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))

        vectors = client.embeddings.create(model="openai-example", input=["a mill", "a sluice"])
        print("dimensions:", len(vectors.data[0].embedding))
    httpx.delete(collection, headers=headers, timeout=120).raise_for_status()


if __name__ == "__main__":
    main()
