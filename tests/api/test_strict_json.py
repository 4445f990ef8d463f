from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import strict_json
from pipeline.errors import InvalidRequestError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(values)
def test_what_json_can_say_comes_through(value: object) -> None:
    assert strict_json.loads(json.dumps(value).encode(), max_depth=200) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[9223372036854775808]",
        b"[" + b"9" * 10_000 + b"]",
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
        b'{"secret": "canary", }',
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 40 + b"]" * 40,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_later_code_chokes_on_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        strict_json.loads(body, max_depth=32)
    assert "canary" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("depth", [1, 5, 32])
def test_depth_counts_containers(depth: int) -> None:
    body = b"[" * depth + b"1" + b"]" * depth
    assert strict_json.loads(body, max_depth=depth) is not None
    with pytest.raises(InvalidRequestError, match="deeper"):
        strict_json.loads(body, max_depth=depth - 1)


def test_long_bodies_are_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[bool] = []
    parse = strict_json.loads

    def noted(body: bytes, *, max_depth: int) -> Any:
        places.append(threading.current_thread() is threading.main_thread())
        return parse(body, max_depth=max_depth)

    monkeypatch.setattr(strict_json, "loads", noted)
    short, long = b"[1]", b"[" + b"1," * 50_000 + b"1]"
    assert asyncio.run(strict_json.read(short, max_depth=4)) == [1]
    assert len(asyncio.run(strict_json.read(long, max_depth=4))) == 50_001
    assert places == [True, False]
    with pytest.raises(InvalidRequestError):
        asyncio.run(strict_json.read(b"[" * 100_000, max_depth=4))
