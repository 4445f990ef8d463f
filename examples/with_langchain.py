"""Ask with LangChain's OpenAI classes.

LONGLEAF_URL=http://127.0.0.1:8000 LONGLEAF_KEY=id.secret python examples/with_langchain.py
"""

from __future__ import annotations

import os

import httpx
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

LEASE = (
    "The tenant of the mill pays forty pounds a year to the owner. "
    "Either party may end the lease with three months' notice."
)


def main() -> None:
    """A chain and embeddings, with a collection that is dropped at the end."""
    url = os.environ.get("LONGLEAF_URL", "http://127.0.0.1:8000")
    key = os.environ.get("LONGLEAF_KEY", "none")
    collection = f"{url}/v1/collections/langchain-example"
    headers = {"Authorization": f"Bearer {key}"}
    document = {"id": "lease", "title": "Lease of the mill", "text": LEASE}
    httpx.post(
        f"{collection}/documents", json={"documents": [document]}, headers=headers, timeout=120
    ).raise_for_status()

    access = {"base_url": f"{url}/v1", "api_key": key}
    chain = ChatPromptTemplate.from_template("With how much {what} may the lease be ended?") | ChatOpenAI(
        model="langchain-example", **access
    )
    print("answer:", chain.invoke({"what": "notice"}).content)

    # Its own tokenizer is that of OpenAI's models, so it is told to send texts as they are.
    embeddings = OpenAIEmbeddings(model="langchain-example", check_embedding_ctx_length=False, **access)
    print("dimensions:", len(embeddings.embed_query("a mill")))
    httpx.delete(collection, headers=headers, timeout=120).raise_for_status()


if __name__ == "__main__":
    main()
