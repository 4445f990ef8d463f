"""The BERT family (BERT, RoBERTa, XLM-RoBERTa) on packed sequences: no padding, no mask.

Devlin et al. 2019, post-layer-norm encoder. All tokens of a batch lie behind one another, so every
linear layer works on real tokens only; attention runs once for each run of sequences of equal length.
Written out here because importing transformers' own model takes 6 seconds on a contended core, torch
alone 2, and a search has to start within 6; tests hold it against transformers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.folder import EncoderFolder
from pipeline.errors import ModelError

if TYPE_CHECKING:
    import torch

_POSITION_OFFSET = {"bert": False, "roberta": True, "xlm-roberta": True}
_WEIGHTS = "model.safetensors"


def runs_here(folder: EncoderFolder) -> bool:
    """Whether this file can run the model, rather than the library."""
    config = folder.config
    return (
        folder.model_type in _POSITION_OFFSET
        and not folder.has_head
        and config.get("position_embedding_type", "absolute") == "absolute"
        and config.get("hidden_act") == "gelu"
        and not config.get("is_decoder")
        and (folder.path / _WEIGHTS).exists()
    )


class PackedBert:
    """Token ids to vectors of the last layer."""

    def __init__(self, folder: EncoderFolder, dtype: str, device: str) -> None:
        import torch
        from safetensors.torch import load_file

        config = folder.config
        self._device = torch.device(device)
        self._dtype = getattr(torch, dtype if dtype != "auto" else faster_dtype(device))
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        try:
            self._take(load_file(folder.path / _WEIGHTS), config)
        except KeyError as error:
            raise ModelError(
                f"The weights in {folder.path} lack {error.args[0]!r}.",
                remedy="The file does not belong to its config.json; obtain the model again.",
            ) from error

    def _take(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        """Pick the tensors by their published names, with query, key and value stacked."""
        import torch

        table = "embeddings.word_embeddings.weight"
        found = next((name for name in weights if name.endswith(table)), table)
        prefix = found.removesuffix(table)

        def get(name: str) -> torch.Tensor:
            return weights[prefix + name].to(self._device, self._dtype)

        def pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return get(name + ".weight"), get(name + ".bias")

        self._words = get(table)
        skip = int(config.get("pad_token_id", 1)) + 1 if _POSITION_OFFSET[config["model_type"]] else 0
        first_type = get("embeddings.token_type_embeddings.weight")[0]
        self._positions = get("embeddings.position_embeddings.weight")[skip:] + first_type
        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for i in range(int(config["num_hidden_layers"])):
            at = f"encoder.layer.{i}."
            qkv = [pair(f"{at}attention.self.{name}") for name in ("query", "key", "value")]
            self._layers.append(
                (
                    (torch.cat([w for w, _ in qkv]), torch.cat([b for _, b in qkv])),
                    pair(at + "attention.output.dense"),
                    pair(at + "attention.output.LayerNorm"),
                    pair(at + "intermediate.dense"),
                    pair(at + "output.dense"),
                    pair(at + "output.LayerNorm"),
                )
            )

    def __call__(self, ids: NDArray[np.int64], lengths: Sequence[int]) -> NDArray[np.float32]:
        """Vectors float32 ``(T, D)`` for ``ids`` ``(T,)``, the sequences of ``lengths`` in a row.

        Sequences of equal length should be neighbours: they share one attention call.
        """
        import torch
        import torch.nn.functional as F

        runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        with torch.inference_mode():
            places = torch.cat([torch.arange(length).repeat(count) for length, count in runs])
            x = self._words[torch.from_numpy(ids).to(self._device)] + self._positions[places.to(self._device)]
            shape, epsilon = (x.shape[1],), self._epsilon
            x = F.layer_norm(x, shape, *self._norm, epsilon)
            for qkv, out, norm, up, down, last_norm in self._layers:
                attended = self._attend(F.linear(x, *qkv), runs)
                x = F.layer_norm(F.linear(attended, *out).add_(x), shape, *norm, epsilon)
                hidden = F.gelu(F.linear(x, *up))
                x = F.layer_norm(F.linear(hidden, *down).add_(x), shape, *last_norm, epsilon)
            vectors: NDArray[np.float32] = x.float().cpu().numpy()
        return vectors

    def _attend(self, qkv: torch.Tensor, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
        """``(T, 3 D)`` to ``(T, D)``, each sequence attending to itself."""
        import torch
        import torch.nn.functional as F

        width = qkv.shape[1] // 3
        parts, start = [], 0
        for length, count in runs:
            stop = start + length * count
            # (count, L, 3, H, D/H) -> 3 x (count, H, L, D/H)
            q, k, v = qkv[start:stop].view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v)
            parts.append(attended.transpose(1, 2).reshape(stop - start, width))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def faster_dtype(device: str) -> str:
    """``bfloat16`` where it multiplies at least 1.3 times as fast as ``float32``, measured in 20 ms.

    Having the instructions is not enough: a Xeon with avx512_bf16 but no AMX ran it at 0.6 times.
    """
    import torch

    if torch.device(device).type != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    seconds = {}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        x, weight = torch.ones(192, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
        with torch.inference_mode():
            times = []
            for _ in range(4):
                start = time.perf_counter()
                torch.nn.functional.linear(x, weight)
                times.append(time.perf_counter() - start)
        seconds[name] = min(times)
    return "bfloat16" if seconds["bfloat16"] * 1.3 < seconds["float32"] else "float32"
