"""GGUF to safetensors, once: the same weights load in a second instead of half a minute.

Weights are dequantised to float32. Half of them (of SmolLM2, Q4_1) have no exact float16 and four fifths
no exact bfloat16, so nothing smaller would be the published model.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DiskFullError, LongleafError, ModelError, StorageError

FORMAT = 1
"""Grows when conversion changes its result, so that older results are not used any more."""

_MANIFEST = "longleaf.json"
_FREE_MARGIN_BYTES = 64 * 2**20


def read_manifest(folder: Path) -> Mapping[str, str]:
    """File names and SHA-256 of the weights a conversion wrote into ``folder``; empty if there was none."""
    try:
        files = json.loads((folder / _MANIFEST).read_text("utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(digest) for name, digest in files.items()}


def convert_gguf(
    source: Path,
    target: Path,
    *,
    is_done: Callable[[Path], bool],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write the model in the GGUF file ``source`` to the folder ``target`` as safetensors.

    ``target`` appears complete or not at all: a killed conversion leaves only a temporary folder beside
    it, which the next one removes. A second process waits for the first and, if ``is_done(target)``,
    returns. Raises DiskFullError before any work, ModelError for a file transformers cannot read.
    """
    import filelock

    say = progress or (lambda _: None)
    lock = filelock.FileLock(target.parent / f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if lock_is_taken(lock):
            say(f"Waiting for another process that is converting {source.name}")
        with lock:
            if is_done(target):
                return
            for left_over in target.parent.glob(f".{target.name}-*.tmp"):
                shutil.rmtree(left_over)  # whoever held the lock and wrote this was killed
            _convert(source, target, say)
    except OSError as error:
        raise _storage_error(error, target) from error


def lock_is_taken(lock: Any) -> bool:  # noqa: ANN401 - a filelock.FileLock, imported lazily
    """Whether another process holds the lock at this moment."""
    import filelock

    try:
        with lock.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def _convert(source: Path, target: Path, say: Callable[[str], None]) -> None:
    say(f"Reading {source.name} (once; later starts take a second)")
    pre_tokenizer, parameters = _header(source)
    needed_bytes, free_bytes = 4 * parameters + _FREE_MARGIN_BYTES, shutil.disk_usage(target.parent).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"Converting {source.name} takes {needed_bytes:,} bytes, {target.parent} has {free_bytes:,}.",
            remedy="Free some space, or set another folder for models.",
        )
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=".tmp"))
    try:
        with quiet_transformers():
            _write_model(source, temporary, pre_tokenizer, say)
        _seal(temporary, source)
        if target.exists():  # damaged, or is_done would have said so
            shutil.rmtree(target)
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f"Saved {target}")


def _header(source: Path) -> tuple[str, int]:
    """The name of the pre-tokenizer and the number of weights."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(source))
        field = reader.get_field("tokenizer.ggml.pre")
        parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelError(
            f"{source} is not a valid GGUF file: {error}", remedy="Download or install the model again."
        ) from error
    return (str(field.contents()) if field else ""), parameters


def _write_model(source: Path, folder: Path, pre_tokenizer: str, say: Callable[[str], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        say(f"Converting the weights of {source.name} to float32")
        model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    except (ValueError, ImportError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot read {source}: {error}",
            remedy="Use a GGUF of an architecture that transformers supports, or a folder with safetensors.",
        ) from error
    _restore_digit_splitting(tokenizer, pre_tokenizer)
    # save_pretrained would refuse to write what it takes for quantised weights; they no longer are.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _restore_digit_splitting(tokenizer: Any, pre_tokenizer: str) -> None:  # noqa: ANN401 - of transformers
    """SmolLM splits numbers into digits first; transformers' GGUF reader drops that step of the tokenizer."""
    if pre_tokenizer != "smollm":
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _seal(folder: Path, source: Path) -> None:
    """Write the manifest and push everything to the disk, so that a power cut cannot leave half a model."""
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            weights[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    content = {"format": FORMAT, "source": source.name, "weights": weights}
    (folder / _MANIFEST).write_text(json.dumps(content, indent=1), "utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers inside: a library does not write to the terminal."""
    from transformers import modeling_gguf_pytorch_utils as gguf_utils
    from transformers.utils import logging

    was_enabled, bar = logging.is_progress_bar_enabled(), gguf_utils.tqdm
    logging.disable_progress_bar()
    gguf_utils.tqdm = functools.partial(bar, disable=True)  # this one bar does not ask the switch
    try:
        yield
    finally:
        gguf_utils.tqdm = bar
        if was_enabled:
            logging.enable_progress_bar()


def _storage_error(error: OSError, target: Path) -> LongleafError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"No space left in {target.parent} while converting a model.",
            remedy="Free some space, or set another folder for models.",
        )
    return StorageError(
        f"The folder for models, {target.parent}, cannot be used: {error}",
        remedy="Make it writable, or set another folder for models.",
    )
