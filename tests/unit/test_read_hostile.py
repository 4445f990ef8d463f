"""Mutants of a PDF: each gives a document or an error of the tree, and the next file is read."""

from __future__ import annotations

import random
import zlib

import pytest

from pipeline.errors import ReadError
from pipeline.read import Limits, read
from pipeline.read.limits import MIB
from tests.pdf_writer import pdf, stack

LIMITS = Limits(memory_bytes=256 * MIB, cpu_seconds=10, wall_seconds=60.0, output_chars=1_000_000)
GOOD = pdf(
    [stack([f"Line {i} of page {page} has words enough." for i in range(30)], 72, 72) for page in range(3)]
)


def mutant(data: bytes, seed: int) -> bytes:
    """Bytes flipped, cut, doubled, or numbers made absurd."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        at, length = rng.randrange(len(out)), rng.randint(1, 60)
        way = rng.randrange(5)
        if way == 0:
            out[at] = rng.randrange(256)
        elif way == 1:
            del out[at : at + length]
        elif way == 2:
            out[at:at] = out[at : at + length] * rng.randint(1, 50)
        elif way == 3:
            out[at : at + 1] = str(rng.choice([-1, 0, 2**31, 2**63, 10**30])).encode()
        else:
            out[at : at + length] = rng.randbytes(length)
        if len(out) < 10:
            break
    return bytes(out)


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_mutants(start: int) -> None:
    for seed in range(start, start + 10):
        try:
            document = read(mutant(GOOD, seed), name="mutant.pdf", limits=LIMITS)
        except ReadError as error:
            assert error.remedy, error
        else:
            assert document.text.strip()
    assert "Line 29 of page 2" in read(GOOD, name="good.pdf", limits=LIMITS).text


def bomb_of_zeros() -> bytes:
    """A few kilobytes that unpack to 300 MB of content."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"(x) Tj " * 100_000) for _ in range(450)) + packer.flush()
    stream = b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed)
    whole = pdf([[]])
    return whole.replace(b"<</Length 0>>stream\n\nendstream", stream)


def bomb_of_nesting() -> bytes:
    return pdf([stack(["Words that are there."], 72, 72)]).replace(
        b"/Type/Catalog", b"/Type/Catalog/X" + b"[" * 200_000
    )


@pytest.mark.parametrize("bomb", [bomb_of_zeros, bomb_of_nesting], ids=["inflating", "nesting"])
def test_bombs(bomb: object) -> None:
    try:
        read(bomb(), name="bomb.pdf", limits=LIMITS)  # type: ignore[operator]
    except ReadError as error:
        assert error.remedy
