"""Any other model through the sentence-transformers library, behind the same call as ``PackedBert``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.bert import faster_dtype
from pipeline.encoder.folder import EncoderFolder
from pipeline.errors import ConfigurationError, ModelError
from pipeline.positions import Choice, Native, SelfExtend

_TEMPERATURE: ContextVar[float] = ContextVar("temperature of attention", default=1.0)
_TEMPERED = "longleaf_tempered"


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

    def __init__(
        self, folder: EncoderFolder, dtype: str, device: str, choice: Choice, *, compiled: bool = False
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if dtype == "auto":  # on a processor not every operation of every family is faster in bfloat16
            dtype = "float32" if torch.device(device).type == "cpu" else faster_dtype(device)
        try:
            with _no_progress_bar():
                self._model: Any = SentenceTransformer(
                    str(folder.path),
                    device=device,
                    trust_remote_code=False,
                    local_files_only=True,
                    model_kwargs={"dtype": getattr(torch, dtype)},
                )
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ModelError(
                f"sentence-transformers cannot load the model in {folder.path}: {error}",
                remedy="Check that the folder is complete and needs no code of its own, which is never run.",
            ) from error
        self._padding = int(folder.config.get("pad_token_id") or 0)
        self._rotary = folder.position_kind == "rotary"
        self._positions = choice.method
        self._stretch(folder, choice)
        if compiled:  # the library calls forward itself, so compiling the module would do nothing
            network = self.network
            network.forward = torch.compile(network.forward, dynamic=True)

    def _stretch(self, folder: EncoderFolder, choice: Choice) -> None:
        from pipeline.positions.declared import rope_of
        from pipeline.positions.network import extend, extend_matrix, settle

        network = self.network
        if self._rotary and isinstance(choice.method, Native):
            settle(network, folder.positions)
        elif self._rotary:
            rope = rope_of(network.config.to_dict(), folder.positions)
            extend(network, choice.method, rope, choice.window_tokens)
        else:
            extend_matrix(network, choice.method, folder.positions)

    @property
    def network(self) -> Any:  # noqa: ANN401 - of transformers
        """The network that gives token vectors, with its positions stretched."""
        module = self._model[0]
        return module.model if hasattr(module, "model") else module.auto_model

    def __call__(
        self, ids: NDArray[np.int64], lengths: Sequence[int], temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Vectors float32 ``(T, D)`` for ``ids`` ``(T,)``, the sequences of ``lengths`` in a row.

        ``temperature`` divides the logits of attention. Raises ConfigurationError where the model cannot
        follow it.
        """
        import torch

        features, mask = padded(ids, lengths, self._padding, rotary=self._rotary)
        if temperature != 1:
            self._follow_temperature()
        token = _TEMPERATURE.set(temperature)
        try:
            with torch.inference_mode():
                moved = {n: torch.from_numpy(value).to(self._model.device) for n, value in features.items()}
                states = self._model[0](moved)["token_embeddings"].float().cpu().numpy()
        finally:
            _TEMPERATURE.reset(token)
        vectors: NDArray[np.float32] = states[mask]
        return vectors

    def _follow_temperature(self) -> None:
        """Let the network's attention ask for the temperature of the pass that is running."""
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        network = self.network
        if isinstance(self._positions, SelfExtend) or not getattr(
            network, "_supports_attention_backend", False
        ):
            raise ConfigurationError(
                f"The attention of {type(network).__name__} cannot be given a temperature here.",
                remedy="Set late_temperature to 1.",
            )
        if network.config._attn_implementation != _TEMPERED:
            AttentionInterface.register(_TEMPERED, _tempered)
            AttentionMaskInterface.register(_TEMPERED, sdpa_mask)
            network.set_attn_implementation(_TEMPERED)

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


def padded(
    ids: NDArray[np.int64], lengths: Sequence[int], padding: int, *, rotary: bool
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    """Sequences in a row ``(T,)`` as inputs ``(B, longest)``, and where the tokens are among them.

    A network with rotary positions is told them; padding has position 0, so that a row tells how long
    its sequence is.
    """
    mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    filled = np.full(mask.shape, padding, np.int64)
    filled[mask] = ids
    features = {"input_ids": filled, "attention_mask": mask.astype(np.int64)}
    if rotary:
        features["position_ids"] = np.arange(mask.shape[1]) * mask
    return features, mask


def _tempered(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:  # noqa: ANN401 - as transformers calls it
    """Scaled dot product attention whose logits are divided by the temperature of this pass."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scaling = options.pop("scaling", None) or query.shape[-1] ** -0.5
    return sdpa_attention_forward(
        module, query, key, value, mask, scaling=scaling / _TEMPERATURE.get(), **options
    )
