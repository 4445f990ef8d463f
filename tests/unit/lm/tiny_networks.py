"""Builds tiny random models of several architectures, and a byte-level tokenizer trained on a few lines."""

from __future__ import annotations

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "The lease ends on the last day of March, and the tenant returns the keys.",
    "Wer die Frist versäumt, verliert das Recht; größere Fälle kommen vor Gericht.",
    "契約は三月に終わります。 🌲🌲 naïve café — “quoted”",
    "0123456789 12 March 2024, $4,500.00 (four thousand five hundred)",
]


def make_tokenizer():
    """Byte-level BPE in which every text can be spelt; special tokens as in ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHATML
    )


def make_network(family: str):
    """A random network of 3 layers. Weights are large enough for its choices to be clear ones."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    shape = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "initializer_range": 0.4,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    windows = {
        "mistral": {"sliding_window": 16},
        "gemma2": {"sliding_window": 16},
        "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
        "phi3": {"sliding_window": 16},
        "qwen3": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    }
    config = CONFIG_MAPPING[family](**shape, **windows.get(family, {}))
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(config).eval()


def logits_in_chunks(network, ids, plan, chunks):
    """Logits (1, L, V) of ``ids`` (1, L) read under a plan, so many tokens at a time."""
    import torch

    from pipeline.lm.attention import following
    from pipeline.lm.kv_cache import new_cache

    cache, at, parts = new_cache(network.config, 64), 0, []
    for size in chunks:
        with torch.inference_mode(), following(plan, at):
            chunk = ids[:, at : at + size]
            parts.append(network(input_ids=chunk, past_key_values=cache, use_cache=True).logits)
        at += size
    return torch.cat(parts, 1)


def some_ids(length=40, seed=9):
    """Token ids (1, length), always the same."""
    import torch

    return torch.randint(3, 400, (1, length), generator=torch.Generator().manual_seed(seed))
