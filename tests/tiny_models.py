"""Sentence-transformers folders with a few thousand random weights, written in a moment, offline.

Weights are drawn wide, so that different texts get clearly different vectors.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "tenant", "pays", "rent", "duck", "swims", "on", "a", "lake", "query", "passage", ":"]
VOCABULARY = [
    *SPECIAL,
    *WORDS,
    *string.ascii_lowercase,
    *(f"##{c}" for c in string.ascii_lowercase),
    ".",
    ",",
]


DECODERS = ("qwen3", "mistral")
ROTARY_ENCODERS = ("nomic_bert", "gte", "jina_embeddings_v3", "eurobert", "modernbert")
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1000.0}


def write_model(
    folder: Path,
    model_type: str = "bert",
    *,
    positions: int = 544,
    layers: int = 2,
    pooling: dict[str, Any] | None = None,
    prompts: dict[str, str] | None = None,
    lower_case: bool = False,
) -> Path:
    """A transformer with a tokenizer and what sentence-transformers keeps beside them."""
    import torch
    from transformers import AutoConfig, AutoModel

    offset = 2 if model_type in ("roberta", "xlm-roberta") else 0
    config = AutoConfig.for_model(
        model_type, vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=layers,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=positions + offset,
        pad_token_id=offset // 2, initializer_range=0.3, **_family(model_type),
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    (folder / "2_Normalize").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, **(pooling or {"pooling_mode_mean_tokens": True})},
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": lower_case})
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts or {}})
    return folder


def _family(model_type: str) -> dict[str, Any]:
    if model_type in DECODERS:
        return {"num_key_value_heads": 2, "head_dim": 8, "rope_parameters": PLAIN_ROPE}
    if model_type == "modernbert":  # the first layer looks at everything, the second at 16 tokens
        return {"local_attention": 16, "global_attn_every_n_layers": 2}
    if model_type in ROTARY_ENCODERS:
        return {"rope_parameters": PLAIN_ROPE}
    return {"type_vocab_size": 1 + (model_type == "bert")}


def write_tokenizer(folder: Path) -> None:
    """WordPiece over letters; truncation and padding are switched on, as published files have it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def add_dense(folder: Path, width: int) -> None:
    """Put a Dense layer with tanh between pooling and normalising, as the library writes it."""
    import torch
    from safetensors.torch import save_file

    modules = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.models.Dense"
    modules.insert(2, {"path": "3_Dense", "type": kind})
    numbered = [{**module, "idx": i, "name": str(i)} for i, module in enumerate(modules)]
    write_json(folder / "modules.json", numbered)  # of two modules of one name the library keeps the last
    activation = "torch.nn.modules.activation.Tanh"
    config = {"in_features": 32, "out_features": width, "bias": True, "activation_function": activation}
    write_json(folder / "3_Dense" / "config.json", config)
    torch.manual_seed(1)
    weights = {"linear.weight": torch.randn(width, 32), "linear.bias": torch.randn(width)}
    save_file(weights, folder / "3_Dense" / "model.safetensors")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
