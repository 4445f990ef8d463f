"""The BERT family (BERT, RoBERTa, XLM-RoBERTa, JinaEmbeddingsV3) on packed sequences: no padding, no mask.

Devlin et al. 2019, post-layer-norm encoder, with a matrix of positions or with rotary ones. All tokens of
a batch lie behind one another, so every linear layer works on real tokens only; attention runs once for
each run of sequences of equal length. Written out here because importing transformers' own model takes 6
seconds on a contended core, torch alone 2, and a search has to start within 6; tests hold it against
transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import cycle, groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.folder import EncoderFolder
from pipeline.errors import ModelError
from pipeline.positions import Choice, Rope, SelfExtend, interpolated
from pipeline.positions.declared import rope_of

if TYPE_CHECKING:
    import torch

_POSITION_OFFSET = {"bert": False, "roberta": True, "xlm-roberta": True}
_TRIALS = 50  # products, to find out which number format is faster
_ROTARY = "jina_embeddings_v3"
_WEIGHTS = "model.safetensors"
# Published names: the first norm, where layers are, and in a layer what makes query, key and value (one
# after the other, or stacked), output, norm, up, down, last norm.
_BERT_NAMES = (
    "embeddings.LayerNorm", "encoder.layer.",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
    "output.LayerNorm",
)  # fmt: skip
_ROTARY_NAMES = (
    "emb_ln", "encoder.layers.", ("mixer.Wqkv",), "mixer.out_proj", "norm1", "mlp.fc1", "mlp.fc2", "norm2",
)  # fmt: skip


def runs_here(folder: EncoderFolder, choice: Choice) -> bool:
    """Whether this file can run the model with these positions, rather than the library."""
    config = folder.config
    return (
        (folder.model_type in _POSITION_OFFSET or _plainly_rotary(config))
        and not isinstance(choice.method, SelfExtend)
        and not folder.has_head
        and config.get("position_embedding_type", "absolute") == "absolute"
        and config.get("hidden_act") == "gelu"
        and not config.get("is_decoder")
        and (folder.path / _WEIGHTS).exists()
    )


def _plainly_rotary(config: Mapping[str, Any]) -> bool:
    stretched = (config.get("rope_parameters") or {}).get("rope_type", "default") != "default"
    return config.get("model_type") == _ROTARY and not stretched


class PackedBert:
    """Token ids to vectors of the last layer."""

    def __init__(self, folder: EncoderFolder, dtype: str, device: str, choice: Choice) -> None:
        import torch
        from safetensors.torch import load_file

        config = folder.config
        self._device = torch.device(device)
        self._dtype = getattr(torch, dtype if dtype != "auto" else faster_dtype(device))
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._choice = choice
        self._rope = rope_of(config, folder.positions) if folder.model_type == _ROTARY else None
        self._turns = lru_cache(maxsize=64)(self._made_turns)
        try:
            self._take(load_file(folder.path / _WEIGHTS), folder)
        except KeyError as error:
            raise ModelError(
                f"The weights in {folder.path} lack {error.args[0]!r}.",
                remedy="The file does not belong to its config.json; obtain the model again.",
            ) from error

    def _take(self, weights: Mapping[str, torch.Tensor], folder: EncoderFolder) -> None:
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
        self._positions = get("embeddings.token_type_embeddings.weight")[:1]
        if self._rope is None:
            matrix = weights[prefix + "embeddings.position_embeddings.weight"]
            unused = (
                int(folder.config.get("pad_token_id", 1)) + 1 if _POSITION_OFFSET[folder.model_type] else 0
            )
            rows = self._choice.method.rows(folder.positions)  # type: ignore[union-attr]
            stretched = interpolated(matrix[unused:].float().numpy(), rows)
            self._positions = torch.from_numpy(stretched).to(self._device, self._dtype) + self._positions
        first_norm, place, inward, *others = _BERT_NAMES if self._rope is None else _ROTARY_NAMES
        self._norm = pair(first_norm)
        self._layers = []
        for i in range(int(folder.config["num_hidden_layers"])):
            at = f"{place}{i}."
            qkv = [pair(at + name) for name in inward]
            stacked = torch.cat([w for w, _ in qkv]), torch.cat([b for _, b in qkv])
            self._layers.append((stacked, *(pair(f"{at}{name}") for name in others)))

    def __call__(
        self, ids: NDArray[np.int64], lengths: Sequence[int], temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Vectors float32 ``(T, D)`` for ``ids`` ``(T,)``, the sequences of ``lengths`` in a row.

        Sequences of equal length should be neighbours: they share one attention call. ``temperature``
        divides the logits of attention.
        """
        import torch
        import torch.nn.functional as F

        from pipeline.onednn import linear

        runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        with torch.inference_mode():
            x = self._words[torch.from_numpy(ids).to(self._device)] + self._first(runs)
            shape, epsilon = (x.shape[1],), self._epsilon
            x = F.layer_norm(x, shape, *self._norm, epsilon)
            for qkv, out, norm, up, down, last_norm in self._layers:
                attended = self._attend(linear(x, *qkv), runs, temperature)
                x = F.layer_norm(linear(attended, *out).add_(x), shape, *norm, epsilon)
                hidden = F.gelu(linear(x, *up))
                x = F.layer_norm(linear(hidden, *down).add_(x), shape, *last_norm, epsilon)
            vectors: NDArray[np.float32] = x.float().cpu().numpy()
        return vectors

    def _first(self, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
        """What is added to the words ``(T, D)``: positions where they are a matrix, and the segment."""
        import torch

        if self._rope is not None:
            return self._positions
        places = torch.cat([torch.arange(length).repeat(count) for length, count in runs])
        return self._positions[places.to(self._device)]

    def _attend(self, qkv: torch.Tensor, runs: Sequence[tuple[int, int]], temperature: float) -> torch.Tensor:
        """``(T, 3 D)`` to ``(T, D)``, each sequence attending to itself."""
        import torch
        import torch.nn.functional as F

        width = qkv.shape[1] // 3
        scale = (width // self._heads) ** -0.5 / temperature
        parts, start = [], 0
        for length, count in runs:
            stop = start + length * count
            # (count, L, 3, H, D/H) -> 3 x (count, H, L, D/H)
            q, k, v = qkv[start:stop].view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            if self._rope is not None:
                cos, sin = self._turns(length)
                q, k = _turned(q, cos, sin), _turned(k, cos, sin)
            attended = F.scaled_dot_product_attention(q, k, v, scale=scale)
            parts.append(attended.transpose(1, 2).reshape(stop - start, width))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _made_turns(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``(tokens, D/H/2)`` of a sequence of so many tokens."""
        import torch

        rope: Rope = self._rope  # type: ignore[assignment]
        rotation = self._choice.method.rotation(rope, tokens)  # type: ignore[union-attr]
        frequencies = torch.from_numpy(rotation.frequencies).float()
        angles = (torch.arange(tokens).float()[:, None] * frequencies).to(self._device)
        return (angles.cos() * rotation.scale).to(self._dtype), (angles.sin() * rotation.scale).to(
            self._dtype
        )


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Heads ``(B, H, L, D)``, the first half of each paired with the second."""
    import torch

    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def faster_dtype(device: str) -> str:
    """``bfloat16`` where it multiplies at least 1.3 times as fast as ``float32``, measured in 20 ms.

    Having the instructions is not enough: a Xeon with avx512_bf16 but no AMX ran it at 0.6 times. Both are
    measured in turn on one thread, the best of many, since vectors are others with each: with the best of
    four by all threads one start in six chose another than the rest on a busy machine.
    """
    import torch

    from pipeline.onednn import linear

    if torch.device(device).type != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    factors = {t: (torch.ones(192, 384, dtype=t), torch.ones(1536, 384, dtype=t)) for t in seconds}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where others keep the processor busy
    with torch.inference_mode():
        for dtype, (x, weight) in islice(cycle(factors.items()), _TRIALS):
            start = time.perf_counter()
            linear(x, weight)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    torch.set_num_threads(threads)
    return "bfloat16" if seconds[torch.bfloat16] * 1.3 < seconds[torch.float32] else "float32"
