"""Promise 10: requests made from the description, right ones and wrong ones, and a corpus by hand.

No answer is a 500, every answer is described, and nothing of a body comes back in a refusal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import serving
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from small_library import DOCUMENTS, small_settings

from api.build import open_longleaf
from api.sections import ServerSettings

FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
CASES = int(os.environ.get("LONGLEAF_GENERATED_REQUESTS") or (10_000 if FULL else 200))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MOST_GROWTH_BYTES = 512 << 20


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    limits = ServerSettings(preload=False, max_json_bytes=1 << 20, max_query_bytes=1 << 16)
    made = small_settings(tmp_path_factory.mktemp("generated")).model_copy(update={"server": limits})
    with open_longleaf(made) as longleaf, serving(longleaf) as url:
        for collection in ("default", "books"):
            httpx.post(
                f"{url}/v1/collections/{collection}/documents", json={"documents": DOCUMENTS}
            ).raise_for_status()
        yield url


def test_requests_made_from_the_description(library: str) -> None:
    schema = schemathesis.openapi.from_url(f"{library}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    each = -(-CASES // len(operations))
    before = psutil.Process().memory_info().rss
    tried: dict[str, int] = {}

    session = requests.Session()

    for operation in operations:
        right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

        @given(case=st.one_of(right, wrong))
        @settings(
            max_examples=each,
            database=None,
            deadline=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            tried[case.operation.label] = tried.get(case.operation.label, 0) + 1
            response = case.call(session=session, timeout=30)
            case.validate_response(response, checks=CHECKS)
            assert response.status_code != 500

        ask()
    assert len(tried) == len(operations) >= 20
    grown = psutil.Process().memory_info().rss - before
    assert grown < MOST_GROWTH_BYTES, f"memory grew by {grown >> 20} MiB"
    print(
        f"\npromise 10: {sum(tried.values()):,} generated requests, 0 answered 500; memory +{grown >> 20} MiB"
    )


CANARY = "canary-7f3a"
ROUTES = [
    "/v1/collections",
    "/v1/collections/books/documents",
    "/v1/collections/books/search",
    "/v1/collections/books/answer",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/rerank",
]
DEEP = 100_000
CORPUS = {
    "NaN": b'{"canary": "canary-7f3a", "n": NaN}',
    "infinity": b'{"canary": "canary-7f3a", "n": -Infinity}',
    "1e999": b'{"canary": "canary-7f3a", "n": 1e999}',
    "long integer": b'{"canary": "canary-7f3a", "n": ' + b"9" * 60_000 + b"}",
    "lone surrogate": b'{"query": "canary-7f3a \\udc00", "model": "\\ud800", "name": "\\ud800"}',
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b'"canary-7f3a"' + b"}" * DEEP,
    "deep and open": b"[" * DEEP,
    "not UTF-8": b'{"query": "canary-7f3a \xff\xfe"}',
    "UTF-16": '{"query": "canary-7f3a"}'.encode("utf-16"),
    "nul": b'{"query": "canary-7f3a\\u0000", "model": "\\u0000", "name": "\\u0000"}',
    "byte order mark": b"\xef\xbb\xbf" + b'{"query": "canary-7f3a"}',
    "half": b'{"query": "canary-7f3a"',
    "string": b'"canary-7f3a"',
    "array": b'["canary-7f3a"]',
    "null": b"null",
    "nothing": b"",
    "comment": b'{"query": "canary-7f3a" /* x */}',
    "many keys": b"{" + b",".join(b'"canary-7f3a%d": 1' % i for i in range(3000)) + b"}",
}


@pytest.mark.parametrize("route", ROUTES)
def test_the_corpus_by_hand(library: str, route: str) -> None:
    """None is a 500, none is answered with what was sent, and the service goes on."""
    with httpx.Client() as client:
        for name, body in CORPUS.items():
            response = client.post(
                library + route, content=body, headers={"content-type": "application/json"}, timeout=20
            )
            # A text with U+0000 is a text: what asks for it is found to have no answer, or no such name.
            assert 400 <= response.status_code < 500 or name == "nul", (name, response.status_code)
            assert response.status_code != 500, name
            if name not in ("many keys", "nul"):  # the name of a field is told, a value never
                assert CANARY not in response.text, name
            assert len(response.content) < 5000, name
        assert client.get(f"{library}/livez").status_code == 200
