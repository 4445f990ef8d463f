"""GGUF to safetensors, once: the same weights load in a second instead of half a minute.

Weights are dequantised to float32. Half of them (of SmolLM2, Q4_1) have no exact float16 and four fifths
no exact bfloat16, so nothing smaller would be the published model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.made_once import made_once

FORMAT = 1
"""Grows when conversion changes its result, so that older results are not used any more."""


def convert_gguf(
    source: Path,
    target: Path,
    *,
    is_done: Callable[[Path], bool],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write the model in the GGUF file ``source`` to the folder ``target`` as safetensors.

    ``target`` appears complete or not at all, and a second process waits for the first
    (:func:`pipeline.made_once.made_once`). Raises DiskFullError before any work, ModelError for a file
    transformers cannot read.
    """
    say = progress or (lambda _: None)
    header = functools.cache(_header)

    def needed_bytes() -> int:
        say(f"Reading {source.name} (once; later starts take a second)")
        return 4 * header(source)[1]

    def write(folder: Path) -> None:
        with quiet_transformers():
            _write_model(source, folder, header(source)[0], say)

    made_once(
        target, write, source=source.name, needed_bytes=needed_bytes, pattern="*.safetensors",
        is_done=is_done, progress=progress,
    )  # fmt: skip


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
