"""Tiny random models of several architectures, saved and loaded once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import make_network, make_tokenizer


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
            loaded[family] = load(str(model_folder(family)), cache=cache, prefix_bytes=0)
        return loaded[family]

    return model
