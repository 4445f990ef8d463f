"""GGUF becomes safetensors: the same model, once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
import torch
from tiny_gguf import write_gguf
from tiny_networks import make_network

from pipeline import models
from pipeline.errors import DiskFullError, ModelError, ModelNotFoundError, StorageError
from pipeline.lm import model as lm
from pipeline.seams import Message, Sampling

QUESTION = [Message("user", "When does the lease end, in 2024 or 2025?")]


@pytest.fixture(scope="module")
def gguf_file(tokenizer, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", make_network("llama"), tokenizer)


@pytest.fixture(scope="module")
def converted(gguf_file, tmp_path_factory):
    """One conversion for the tests that only look at its result, with what it said meanwhile."""
    cache, said = tmp_path_factory.mktemp("models"), []
    return models.prepare(str(gguf_file), cache, progress=said.append), cache, said


def test_the_converted_model_computes_what_the_original_computes(converted, tokenizer):
    located, cache, _ = converted
    ours, original = lm.load(str(located.path), cache=cache), make_network("llama")
    ids = tokenizer.encode("The lease ends on 12 March 2024.")
    cache_states = ours._new_cache(len(ids))
    with torch.inference_mode():
        expected = original(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours._step(ids, cache_states, keep=len(ids)), expected, atol=1e-4, rtol=1e-4)
    assert ours._network.dtype == torch.float32
    assert text_of(ours.stream(QUESTION, Sampling(max_tokens=10)))


def text_of(deltas) -> str:
    return "".join(delta.text for delta in deltas)


def test_numbers_are_split_into_digits_as_the_file_says(converted, tokenizer):
    """The pre-tokenizer "smollm" separates digits; transformers alone would give a run of spaces away."""
    from pipeline.lm.chat import load_format

    chat = load_format(converted[0].path)
    spelt = [chat.decode([token]) for token in chat.encode("a   5 and 1234")]
    assert spelt[-4:] == ["1", "2", "3", "4"]
    assert " 5" not in spelt


def test_it_is_done_once_and_located_afterwards(converted, gguf_file):
    located, cache, said = converted
    assert said
    again: list[str] = []
    state = (located.path / "model.safetensors").stat()
    assert models.prepare(str(gguf_file), cache, progress=again.append) == located
    assert models.locate(str(gguf_file), cache=cache) == located
    assert again == []
    assert (located.path / "model.safetensors").stat().st_mtime_ns == state.st_mtime_ns
    assert located.name == "tiny"
    assert len(located.revision) == 64


def test_nothing_is_printed(gguf_file, tmp_path, capfd):
    models.prepare(str(gguf_file), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_unconverted_is_not_found_and_the_remedy_converts(gguf_file, tmp_path):
    with pytest.raises(ModelNotFoundError, match="not been converted") as caught:
        models.locate(str(gguf_file), cache=tmp_path)
    assert f"python -m pipeline.models {gguf_file}" in caught.value.remedy


@pytest.mark.parametrize("damage", ["flipped", "shortened", "deleted", "unsealed"])
def test_a_damaged_conversion_is_redone(converted, gguf_file, tmp_path, damage):
    cache = tmp_path / "models"
    shutil.copytree(converted[1], cache)
    located = models.prepare(str(gguf_file), cache)
    weights = located.path / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "flipped":
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        state = weights.stat()
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    elif damage == "shortened":
        weights.write_bytes(whole[:-100])
    elif damage == "deleted":
        weights.unlink()
    else:
        (located.path / "longleaf.json").unlink()
    with pytest.raises(ModelNotFoundError):
        models.locate(str(gguf_file), cache=cache)
    assert models.prepare(str(gguf_file), cache) == located
    assert weights.read_bytes() == whole


def test_two_at_once_make_one(gguf_file, tmp_path):
    said: list[str] = []
    results, errors = [], []

    def run() -> None:
        try:
            results.append(models.prepare(str(gguf_file), tmp_path, progress=said.append))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results[0] == results[1]
    assert sum(message.startswith("Saved") for message in said) == 1


def test_left_overs_of_a_killed_conversion_are_removed(converted, gguf_file, tmp_path):
    target = tmp_path / converted[0].path.name
    left_over = tmp_path / f".{target.name}-abc.tmp"
    left_over.mkdir()
    (left_over / "model.safetensors").write_bytes(b"half")
    models.prepare(str(gguf_file), tmp_path)
    assert not left_over.exists()
    assert target.is_dir()


@pytest.mark.slow
def test_killed_in_the_middle_leaves_nothing_that_counts(gguf_file, tmp_path):
    """A real kill -9, as soon as the temporary folder is there."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    cache = tmp_path / ".cache" / "longleaf" / "models"
    command = [sys.executable, "-m", "pipeline.models", str(gguf_file)]
    process = subprocess.Popen(command, env=environment)
    while not list(cache.glob(".*.tmp")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(cache.glob(".*.tmp"))
    with pytest.raises(ModelNotFoundError):
        models.locate(str(gguf_file), cache=cache)
    subprocess.run(command, env=environment, check=True)
    assert models.locate(str(gguf_file), cache=cache).path.is_dir()
    assert not list(cache.glob(".*.tmp"))


def test_no_space_is_said_before_any_work(gguf_file, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 4096, 4096))
    with pytest.raises(DiskFullError, match=r"4,096 free|has 4,096"):
        models.prepare(str(gguf_file), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_that_cannot_be_used_is_a_storage_error(gguf_file, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StorageError, match="file"):
        models.prepare(str(gguf_file), blocked / "models")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"rubbish" * 100, b"GGUF" + bytes(4000)])
def test_what_is_no_gguf_is_named(tmp_path, content):
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        models.prepare(str(file), tmp_path / "models")
