"""Tiny random models of several architectures, with a byte-level tokenizer trained on a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    windows = {"mistral": {"sliding_window": 16}, "gemma2": {"sliding_window": 16}}
    config = CONFIG_MAPPING[family](**shape, **windows.get(family, {}))
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Two threads on a busy machine spend their time waiting for each other when matrices are tiny."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """A function from a family's name to a folder that holds a tiny model of it."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp("models") / f"tiny-{family}"
            make_network(family).save_pretrained(folders[family])
            tokenizer.save_pretrained(folders[family])
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def tiny(model_folder, tmp_path_factory):
    """A function from a family's name to the loaded model."""
    from pipeline.lm.model import load

    cache = tmp_path_factory.mktemp("cache")
    loaded = {}

    def model(family: str = "llama"):
        if family not in loaded:
            loaded[family] = load(str(model_folder(family)), cache=cache)
        return loaded[family]

    return model
