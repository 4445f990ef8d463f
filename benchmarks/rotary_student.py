"""BERT with rotary positions in place of its matrix: weights from a BERT, the training pass, the folder.

The names are those under which models of family ``jina_embeddings_v3`` are published.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

THETA = 10_000.0
TRAINED = 512
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json",
         "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json")  # fmt: skip


Weights = dict[str, torch.Tensor]


def student_weights(teacher: Weights, layers: int) -> Weights:
    """The teacher's weights under the student's published names, fp32, without positions."""
    old = {name.removeprefix("bert."): value.float() for name, value in teacher.items()}
    segment = old["embeddings.token_type_embeddings.weight"][:1]
    new = {
        "embeddings.word_embeddings.weight": old["embeddings.word_embeddings.weight"],
        "embeddings.token_type_embeddings.weight": segment
        + old["embeddings.position_embeddings.weight"][:TRAINED].mean(0),
    }
    for kind in ("weight", "bias"):
        new[f"emb_ln.{kind}"] = old[f"embeddings.LayerNorm.{kind}"]
        for i in range(layers):
            at, to = f"encoder.layer.{i}.", f"encoder.layers.{i}."
            parts = [old[f"{at}attention.self.{n}.{kind}"] for n in ("query", "key", "value")]
            new[f"{to}mixer.Wqkv.{kind}"] = torch.cat(parts)
            for mine, theirs in (
                ("mixer.out_proj", "attention.output.dense"),
                ("norm1", "attention.output.LayerNorm"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
                ("norm2", "output.LayerNorm"),
            ):
                new[f"{to}{mine}.{kind}"] = old[f"{at}{theirs}.{kind}"]
    return {name: value.clone().contiguous() for name, value in new.items()}


def forward(w: Weights, ids: torch.Tensor, *, heads: int, layers: int, epsilon: float) -> torch.Tensor:
    """Last states ``(B, T, D)`` of ids ``(B, T)``, all sequences as long as the batch."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"]
    batch, tokens, width = x.shape

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

    half = width // heads // 2
    frequencies = THETA ** (-torch.arange(half, device=ids.device, dtype=torch.float32) / half)
    angles = torch.arange(tokens, device=ids.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    x = norm(x, "emb_ln")
    for i in range(layers):
        at = f"encoder.layers.{i}."
        qkv = F.linear(x, w[at + "mixer.Wqkv.weight"], w[at + "mixer.Wqkv.bias"])
        q, k, v = qkv.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (
            torch.cat(
                (t[..., :half] * cos - t[..., half:] * sin, t[..., half:] * cos + t[..., :half] * sin), -1
            )
            for t in (q, k)
        )
        seen = _attended(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).reshape(x.shape)
        x = norm(
            x + F.linear(seen, w[at + "mixer.out_proj.weight"], w[at + "mixer.out_proj.bias"]), at + "norm1"
        )
        hidden_ = F.gelu(F.linear(x, w[at + "mlp.fc1.weight"], w[at + "mlp.fc1.bias"]))
        x = norm(x + F.linear(hidden_, w[at + "mlp.fc2.weight"], w[at + "mlp.fc2.bias"]), at + "norm2")
    return x


def _attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Heads ``(B, H, T, D/H)``; in float32 on a processor, whose bfloat16 gradient is 2 to 5 times slower."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(v.dtype)


def write_folder(folder: Path, source: Path, weights: Weights) -> None:
    """A model folder of family ``jina_embeddings_v3``, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    old = json.loads((source / "config.json").read_text())
    kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
            "layer_norm_eps", "vocab_size", "pad_token_id", "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip
    config = {key: old[key] for key in kept if key in old}
    config |= {"model_type": "jina_embeddings_v3", "architectures": ["JinaEmbeddingsV3Model"],
               "max_position_embeddings": TRAINED, "type_vocab_size": 1,
               "rope_parameters": {"rope_type": "default", "rope_theta": THETA}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in FILES:
        if (source / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
    save_file(
        {n: v.half().contiguous() for n, v in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
