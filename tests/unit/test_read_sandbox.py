"""Parsing in a child process: limits hold, errors are told apart, and nothing outlives its file."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import (
    ConfigurationError,
    DamagedFileError,
    MissingDependencyError,
    PasswordRequiredError,
    ReaderLimitError,
    WorkCancelledError,
)
from pipeline.read import wire
from pipeline.read.builder import DocumentBuilder, Hints
from pipeline.read.limits import MIB, Limits
from pipeline.read.sandbox import Sandbox
from pipeline.types import Document

TIGHT = Limits(memory_bytes=256 * MIB, cpu_seconds=2, wall_seconds=20.0, output_chars=10_000)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel enforces this on Linux only")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def run(box: Sandbox, order: str, limits: Limits = TIGHT, reader: str = "tests.naughty_reader") -> Document:
    return box.run(reader, order.encode(), Hints(name="file.x", password="é"), limits)


def test_a_document_comes_back_whole(sandbox: Sandbox) -> None:
    document = run(sandbox, "echo Größe 𝒳 مرحبا")
    assert document.text == "echo: Größe 𝒳 مرحبا"
    assert (document.title, document.metadata) == ("file.x", {"password": "é"})


def test_cancelling_ends_a_parse_under_way(sandbox: Sandbox) -> None:
    began = time.monotonic()
    hints = Hints(name="file.x", password="")
    with pytest.raises(WorkCancelledError, match=r"file\.x"):
        sandbox.run("tests.naughty_reader", b"sleep 15", hints, TIGHT, lambda: time.monotonic() > began + 0.2)
    assert time.monotonic() - began < 10
    assert run(sandbox, "echo on").text == "echo: on"


def test_no_file_sees_what_another_left_behind(sandbox: Sandbox) -> None:
    assert [run(sandbox, "seen").text for _ in range(3)] == ["seen: 1"] * 3


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        ("burn", ReaderLimitError, "more than 2 s of processor time"),
        ("hog", ReaderLimitError, "more than 256 MiB of memory"),
        ("long 20000", ReaderLimitError, "20,006 characters of text; the limit is 10,000"),
        ("recurse", DamagedFileError, "RecursionError"),
        ("segfault", DamagedFileError, "SIGSEGV"),
        ("exit", DamagedFileError, "exit status"),
        ("raise odd bytes", DamagedFileError, "ValueError: odd bytes"),
        ("refuse", PasswordRequiredError, "It is locked. Unlock it."),
        ("lie", DamagedFileError, "not a document"),
        ("run /bin/true", DamagedFileError, "PermissionError"),
        ("connect", DamagedFileError, "PermissionError"),
        ("fork", DamagedFileError, "PermissionError"),
    ],
)
def test_what_a_hostile_file_does_is_an_error_of_its_own(
    sandbox: Sandbox, order: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(sandbox, order)
    assert run(sandbox, "echo well").text == "echo: well"


def test_a_file_that_takes_too_long_is_stopped(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(ReaderLimitError, match=r"not read within 0\.5 s"):
        run(sandbox, "sleep 60", replace(TIGHT, wall_seconds=0.5))
    assert time.monotonic() - started < 30


def test_no_file_can_be_read_or_written(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with pytest.raises(DamagedFileError, match="PermissionError"):
        run(sandbox, f"open {secret}")
    with pytest.raises(DamagedFileError, match="PermissionError"):
        run(sandbox, f"write {tmp_path / 'new.txt'}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret.txt"]


@LINUX
def test_native_code_cannot_open_files_either(sandbox: Sandbox, tmp_path: Path) -> None:
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        pytest.skip("this kernel has no Landlock")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    assert run(sandbox, f"libc_open {secret}").text == "libc_open: -1"


def test_a_reader_whose_parser_is_not_installed(sandbox: Sandbox) -> None:
    with pytest.raises(MissingDependencyError, match="pip install"):
        run(sandbox, "echo", reader="tests.no_such_reader")


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    found: dict[int, str] = {}

    def work(i: int) -> None:
        found[i] = run(sandbox, f"echo {i}").text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: f"echo: {i}" for i in range(8)}


def test_a_killed_process_is_replaced() -> None:
    box = Sandbox()
    try:
        run(box, "echo one")
        box._idle[0]._process.kill()
        box._idle[0]._process.wait()
        assert run(box, "echo two").text == "echo: two"
    finally:
        box.close()


def test_limits_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="cpu_seconds is 0"):
        Limits(cpu_seconds=0)


BLOCKS = st.lists(
    st.tuples(st.sampled_from(["paragraph", "heading", "table_row"]), st.text(max_size=40)), max_size=12
)


@given(BLOCKS)
def test_documents_survive_the_wire(blocks: list[tuple[str, str]]) -> None:
    builder = DocumentBuilder()
    for number, (kind, text) in enumerate(blocks, 1):
        builder.page(number, f"p{number}")
        builder.add(kind, text, level=1 + number % 3)  # type: ignore[arg-type]
    document = builder.build(title="T", metadata={"n": [1, {"x": None}]})
    assert wire.decode(wire.encode(document)) == document


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        wire.encode(Document("t", "abc")).replace(b'"pages": []', b'"pages": [[1, 0, 9, ""]]'),
        wire.encode(Document("t", "abc")).replace(b'"blocks": []', b'"blocks": [["evil", 0, 1, 0]]'),
        wire.encode(Document("t", "abc")).replace(b'"blocks": []', b'"blocks": [["code", 2, 1, 0]]'),
        wire.encode(Document("t", "abc")).replace(b'"text": "abc"', b'"text": 7'),
    ],
)
def test_a_forged_answer_is_refused(message: bytes) -> None:
    with pytest.raises(DamagedFileError, match="not a document"):
        wire.decode(message)
