"""Token sequences of any number and length to vectors, in batches that waste nothing.

Sequences are sorted by length, so that neighbours in a batch are equally long, and batches hold a
bounded number of tokens, so that memory does not depend on the length of a document.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import device as devices
from pipeline.encoder.bert import PackedBert, runs_here
from pipeline.encoder.exported import Backend, ExportedEncoder, refuse
from pipeline.encoder.folder import WIDTH_KEYS, EncoderFolder
from pipeline.encoder.library import LibraryEncoder
from pipeline.encoder.side_by_side import side_by_side
from pipeline.encoder.tokens import TextTokenizer
from pipeline.errors import ConfigurationError, EmbeddingError
from pipeline.models import default_cache
from pipeline.positions import Choice, Native, choose, shortfall
from pipeline.positions.declared import rope_of

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 1024, 65_536
_MIN_WINDOW_TOKENS = 8


class TextEncoder:
    """A model folder at work. The tokenizer and the weights are loaded when first needed, once.

    ``positions`` is a spec of :mod:`pipeline.positions`; ``window_tokens`` None means as many as it gives;
    ``batch_tokens`` bounds the tokens of one forward pass, padding included (one sequence may exceed it);
    ``dim`` keeps the first components of a vector (Kusupati et al. 2022, Matryoshka representations).
    ``backend`` is what runs the network; a graph for another than torch is kept in ``cache`` under
    ``revision``, the digest of the weights. Raises ConfigurationError for a window, method or width that
    the model does not have, a device that is not there, and for what a back end cannot do or lacks.
    """

    def __init__(
        self,
        folder: EncoderFolder,
        *,
        window_tokens: int | None = None,
        positions: str = "native",
        dim: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        compiled: bool = False,
        backend: Literal["torch"] | Backend = "torch",
        revision: str = "",
        cache: Path | None = None,
        batch_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        if dim is not None and dim > folder.dim:
            raise ConfigurationError(
                f"dim={dim} exceeds the {folder.dim} components of the model's vectors.",
                remedy="Leave it out, or set it to one of the widths the model was trained for.",
            )
        self.folder = folder
        self.dim = dim or folder.dim
        self.choice = _choose(folder, positions, window_tokens)
        self.window_tokens = self.choice.window_tokens
        self._compiled = compiled
        if backend != "torch":
            refuse(folder, self.choice, backend, dtype, device, compiled=compiled)
        devices.check(device)
        self._backend, self._revision, self._cache = backend, revision, cache or default_cache()
        if compiled and runs_here(folder, self.choice):
            raise ConfigurationError(
                f"Models of family {folder.model_type!r} run in packed batches here, which are not compiled.",
                remedy="Leave compile off.",
            )
        self._dtype, self._device = dtype, device
        self._batch_tokens, self._threads = batch_tokens, threads
        self._lock = threading.Lock()
        self._loaded: PackedBert | LibraryEncoder | ExportedEncoder | None = None
        self._on_processor = True
        self._tokens: TextTokenizer | None = None

    @property
    def warning(self) -> str:
        """What is known against the position method at this window, in words; nothing if nothing is."""
        if self.folder.position_kind != "rotary" or isinstance(self.choice.method, Native):
            return ""
        rope = rope_of(self.folder.config, self.folder.positions)
        return shortfall(self.choice.method, rope, self.window_tokens)

    @property
    def tokenizer(self) -> TextTokenizer:
        """Loaded when first asked for; weights are not touched."""
        with self._lock:
            if self._tokens is None:
                self._tokens = TextTokenizer(self.folder)
            return self._tokens

    def content_tokens(self, prompt_tokens: int = 0) -> int:
        """How many tokens of text fit into one window, beside special tokens and a prompt."""
        room = self.window_tokens - len(self.tokenizer.prefix) - len(self.tokenizer.suffix) - prompt_tokens
        if room < _MIN_WINDOW_TOKENS:
            raise ConfigurationError(
                f"window_tokens={self.window_tokens} leaves room for {room} tokens of text.",
                remedy=f"Allow at least {_MIN_WINDOW_TOKENS} besides special tokens and prompt.",
            )
        return room

    def token_vectors(
        self, sequences: Sequence[Ids], prompt: Sequence[int] = (), temperature: float = 1.0
    ) -> Iterator[list[tuple[int, Vectors]]]:
        """Batch by batch, each sequence's index and its token vectors ``(len, D)``.

        Special tokens and the prompt are around every sequence and not among its vectors. ``temperature``
        divides the logits of attention (below 1 it is sharper). The arrays are views into the batch: use
        them before asking for the next.
        """
        before, after = len(self.tokenizer.prefix) + len(prompt), len(self.tokenizer.suffix)
        for batch, vectors, ends in self._forward(sequences, prompt, temperature):
            starts = [0, *ends[:-1]]
            spans = zip(batch, starts, ends, strict=True)
            yield [(i, vectors[start + before : end - after]) for i, start, end in spans]

    def pooled(
        self,
        sequences: Sequence[Ids],
        prompt: Sequence[int] = (),
        done: Callable[[int], None] | None = None,
    ) -> Vectors:
        """One vector ``(D,)`` a sequence, pooled as the model declares, neither headed nor normalised.

        A sequence longer than a window is cut into even windows, whose vectors are averaged by their
        number of tokens. ``done`` is told the tokens of text that each batch finished.
        """
        room = self.content_tokens(len(prompt))
        pieces: list[Ids] = []
        owners: list[int] = []
        for i, ids in enumerate(sequences):
            count = max(1, -(-len(ids) // room))
            edges = [len(ids) * k // count for k in range(count + 1)]
            pieces.extend(ids[a:b] for a, b in pairwise(edges))
            owners.extend([i] * count)
        skip = 0 if self.folder.include_prompt or not prompt else len(self.tokenizer.prefix) + len(prompt)
        vectors = np.empty((len(pieces), self.width), np.float32)
        for batch, states, ends in self._forward(pieces, prompt):
            vectors[batch] = _pool(states, ends, self.folder.pooling, skip)
            if done:
                done(sum(len(pieces[i]) for i in batch))
        if len(pieces) == len(sequences):
            return vectors
        weights = np.array([max(len(piece), 1) for piece in pieces], np.float32)
        firsts = np.searchsorted(owners, np.arange(len(sequences)))
        total: Vectors = np.add.reduceat(vectors * weights[:, None], firsts, axis=0)
        total /= np.add.reduceat(weights, firsts)[:, None]
        return total

    def finish(self, pooled: Vectors, name: Callable[[int], str]) -> Vectors:
        """The model's own head where it has one, the first ``dim`` components, then unit length.

        Raises EmbeddingError for a row that has no direction; ``name`` says what row it is.
        """
        model = self._model()
        if len(pooled) and self.folder.has_head and isinstance(model, LibraryEncoder):
            pooled = model.head(pooled)
        pooled = pooled[:, : self.dim]
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(wrong):
            raise EmbeddingError(
                f"The model gives no vector for {name(int(wrong[0]))}: its length is {lengths[wrong[0], 0]}.",
                remedy="Its weights are damaged, or overflow in this dtype: try dtype float32.",
            )
        unit: Vectors = (pooled / lengths).astype(np.float32, copy=False)
        return unit

    @property
    def width(self) -> int:
        """Width of token vectors; a head may change it to ``folder.dim``."""
        config = self.folder.config
        return next(int(config[key]) for key in WIDTH_KEYS if config.get(key))

    def _forward(
        self, sequences: Sequence[Ids], prompt: Sequence[int], temperature: float = 1.0
    ) -> Iterator[tuple[list[int], Vectors, list[int]]]:
        """For each batch: indices of its sequences, all their vectors in a row, and where each ends."""
        model = self._model()
        head = np.array([*self.tokenizer.prefix, *prompt], np.int32)
        tail = np.array(self.tokenizer.suffix, np.int32)
        extra = len(head) + len(tail)

        def run(batch: list[int]) -> tuple[list[int], Vectors, list[int]]:
            ids = np.concatenate([part for i in batch for part in (head, sequences[i], tail)])
            lengths = [len(sequences[i]) + extra for i in batch]
            return batch, model(ids.astype(np.int64), lengths, temperature), np.cumsum(lengths).tolist()

        plan = batches(
            [len(ids) + extra for ids in sequences],
            self._batch_tokens or _CPU_BATCH_TOKENS,
            padded=not isinstance(model, PackedBert),
        )
        # On a GPU one batch fills the device; several at once would only hold more memory.
        return side_by_side(run, plan) if self._on_processor else map(run, plan)

    def _model(self) -> PackedBert | LibraryEncoder | ExportedEncoder:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> PackedBert | LibraryEncoder | ExportedEncoder:
        import torch

        from pipeline.onednn import speed_up

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        if self._backend != "torch":
            return ExportedEncoder(
                self.folder,
                self._backend,
                self._dtype,
                self.choice,
                revision=self._revision,
                cache=self._cache,
                threads=torch.get_num_threads(),
            )
        device = devices.found(self._device)
        if self._batch_tokens is None and torch.device(device).type == "cuda":
            self._batch_tokens = _GPU_BATCH_TOKENS
        self._on_processor = torch.device(device).type == "cpu"
        if runs_here(self.folder, self.choice):
            return PackedBert(self.folder, self._dtype, device, self.choice)
        library = LibraryEncoder(self.folder, self._dtype, device, self.choice, compiled=self._compiled)
        if not self._compiled:
            speed_up(library.network)
        return library


def _choose(folder: EncoderFolder, positions: str, window_tokens: int | None) -> Choice:
    kind = folder.position_kind
    if kind == "other" and positions != "native":
        raise ConfigurationError(
            f"{positions!r} needs absolute or rotary positions; {folder.model_type!r} has neither.",
            remedy="Leave positions at native.",
        )
    return choose(positions, "absolute" if kind == "other" else kind, folder.positions, window_tokens)


def batches(lengths: Sequence[int], most_tokens: int, *, padded: bool = False) -> Iterator[list[int]]:
    """Indices in batches of at most ``most_tokens`` together (or one alone), neighbours in length.

    With ``padded`` every sequence counts as long as the longest of its batch.
    """
    batch: list[int] = []
    tokens = 0
    for i in np.argsort(lengths, kind="stable").tolist():
        tokens = lengths[i] * (len(batch) + 1) if padded else tokens + lengths[i]
        if batch and tokens > most_tokens:
            yield batch
            batch, tokens = [], lengths[i]
        batch.append(i)
    if batch:
        yield batch


def _pool(states: Vectors, ends: Sequence[int], pooling: str, skip: int) -> Vectors:
    """``(T, D)`` to ``(n, D)``; ``skip`` tokens at the start of each sequence are left out."""
    stops = np.asarray(ends)
    starts = np.concatenate([[0], stops[:-1]])
    pooled: Vectors
    if pooling == "cls":
        pooled = states[starts]
    elif pooling == "lasttoken":
        pooled = states[stops - 1]
    else:
        starts += skip
        # Every second entry of the reduction is what lies between one sequence and the next.
        edges = np.stack([starts, stops], axis=1).reshape(-1)[:-1]
        add = np.maximum if pooling == "max" else np.add
        pooled = add.reduceat(states, edges, axis=0)[::2]
        if pooling == "mean":
            pooled /= (stops - starts).astype(np.float32)[:, None]
    return pooled
