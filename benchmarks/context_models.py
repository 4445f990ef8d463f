"""Models of a known shape with random weights, for benchmarks of speed."""

from __future__ import annotations

import torch

from pipeline import models
from pipeline.lm import model as lm


def shaped(tokenizer: str, device: str) -> lm.LocalModel:
    """A model of the shape of Llama-3-8B with random weights, and the tokenizer of the model
    ``tokenizer`` names."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from pipeline.lm.attention import install
    from pipeline.lm.chat import load_format

    located = models.prepare(tokenizer)
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=140_000,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    install(network)
    place = models.LocatedModel(located.path, "random weights, Llama-3-8B's shape", "0" * 64)
    return lm.LocalModel(place, network, load_format(located.path), config.max_position_embeddings)
