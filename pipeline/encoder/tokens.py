"""Text to one encoding with exact offsets, and the special tokens a model wants around a sequence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.folder import EncoderFolder
from pipeline.errors import ModelError
from pipeline.types import Encoding

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A tokenizer keeps a few hundred bytes a token while it works, so books go through it in pieces.
_PIECE_CHARS = 50_000
_PIECES_AT_ONCE = 4


class TextTokenizer:
    """The model's own tokenizer, without the truncation and padding its file may switch on."""

    def __init__(self, folder: EncoderFolder) -> None:
        self._tokenizer = _load(folder)
        probe = self._tokenizer.encode("a", add_special_tokens=True)
        inside = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
        first, last = (inside[0], inside[-1] + 1) if inside else (len(probe.ids), len(probe.ids))
        self.prefix: list[int] = probe.ids[:first] or self._asked_for(folder, "bos")
        self.suffix: list[int] = probe.ids[last:] or self._asked_for(folder, "eos")

    def _asked_for(self, folder: EncoderFolder, name: str) -> list[int]:
        """The special token that ``add_bos_token`` or ``add_eos_token`` asks for, as decoders have it."""
        path = folder.path / "tokenizer_config.json"
        declared = json.loads(path.read_text("utf-8")) if path.exists() else {}
        token = declared.get(f"{name}_token")
        if not declared.get(f"add_{name}_token") or token is None:
            return []
        found = self._tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
        return [] if found is None else [found]

    def encode(self, text: str) -> Encoding:
        """No special tokens, no truncation; offsets in code points of ``text``.

        Long texts are encoded in pieces that begin at line breaks or spaces.
        """
        ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        offsets: list[NDArray[np.int32]] = [np.empty((0, 2), np.int32)]
        cuts = list(_piece_starts(text))
        for k in range(0, len(cuts) - 1, _PIECES_AT_ONCE):
            some = cuts[k : k + _PIECES_AT_ONCE + 1]
            pieces = self._tokenizer.encode_batch(
                [text[a:b] for a, b in pairwise(some)], add_special_tokens=False
            )
            for start, encoded in zip(some, pieces, strict=False):
                ids.append(np.array(encoded.ids, np.int32))
                offsets.append(np.array(encoded.offsets, np.int32).reshape(-1, 2) + np.int32(start))
        return Encoding(np.concatenate(ids), np.concatenate(offsets))

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of an instruction that stands before a text."""
        # A space at its end belongs to the first word of the text.
        found: list[int] = self._tokenizer.encode(prompt.rstrip(), add_special_tokens=False).ids
        return found

    def ids_after_prompt(self, prompt: str, text: str) -> NDArray[np.int32]:
        """Ids of a short text as they are when it follows the prompt."""
        before = self.prompt_ids(prompt)
        both = self._tokenizer.encode(prompt + text, add_special_tokens=False).ids
        alone = both if both[: len(before)] != before else both[len(before) :]
        return np.array(alone, np.int32)


def _piece_starts(text: str) -> Iterator[int]:
    """0, positions of white space about every 50,000 characters, and the length."""
    position = 0
    while len(text) - position > 2 * _PIECE_CHARS:
        yield position
        position = _break_after(text, position + _PIECE_CHARS, position + 2 * _PIECE_CHARS)
    yield position
    yield len(text)


def _break_after(text: str, start: int, end: int) -> int:
    for mark in ("\n", " ", "。"):
        found = text.find(mark, start, end)
        if found >= 0:
            return found if mark != "。" else found + 1
    return end


def _load(folder: EncoderFolder) -> Tokenizer:
    from tokenizers import Tokenizer, normalizers

    path = folder.path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else _converted(folder.path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if folder.lower_case:
        steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _converted(path: Path) -> Tokenizer:
    """A fast tokenizer made by transformers from older files (vocab.txt, sentencepiece)."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(str(path), use_fast=True).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The model in {path} has no tokenizer that gives offsets: {error}",
            remedy="Choose a model with a tokenizer.json.",
        ) from error
    return tokenizer
