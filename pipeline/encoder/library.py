"""Any other model through the sentence-transformers library, behind the same call as ``PackedBert``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.folder import EncoderFolder
from pipeline.errors import ModelError


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A library does not print; transformers draws a bar while it loads unless told not to."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


class LibraryEncoder:
    """Token ids to vectors of the transformer module, on batches padded to their longest sequence."""

    def __init__(self, folder: EncoderFolder, dtype: str, device: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        kind = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        try:
            with _no_progress_bar():
                self._model: Any = SentenceTransformer(
                    str(folder.path),
                    device=device,
                    trust_remote_code=False,
                    local_files_only=True,
                    model_kwargs={"dtype": kind},
                )
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ModelError(
                f"sentence-transformers cannot load the model in {folder.path}: {error}",
                remedy="Check that the folder is complete and needs no code of its own.",
            ) from error
        self._padding = int(folder.config.get("pad_token_id") or 0)

    def __call__(self, ids: NDArray[np.int64], lengths: Sequence[int]) -> NDArray[np.float32]:
        """Vectors float32 ``(T, D)`` for ``ids`` ``(T,)``, the sequences of ``lengths`` in a row."""
        import torch

        mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        padded = np.full(mask.shape, self._padding, np.int64)
        padded[mask] = ids
        features = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask).long()}
        with torch.inference_mode():
            moved = {name: tensor.to(self._model.device) for name, tensor in features.items()}
            states = self._model[0](moved)["token_embeddings"].float().cpu().numpy()
        vectors: NDArray[np.float32] = states[mask]
        return vectors

    def head(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the modules after pooling (Dense, Normalize) make of pooled vectors ``(n, D)``."""
        import torch

        with torch.inference_mode():
            dtype = next(self._model.parameters()).dtype
            features = {"sentence_embedding": torch.from_numpy(pooled).to(self._model.device, dtype)}
            for module in list(self._model)[2:]:
                features = module(features)
            vectors: NDArray[np.float32] = features["sentence_embedding"].float().cpu().numpy()
        return vectors
