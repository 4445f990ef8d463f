"""What a model folder declares is understood or refused, and nothing heavy is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_json, write_model

from embedders.sentence_transformer import Config, build
from pipeline.encoder.folder import read_folder
from pipeline.errors import ModelError

BERT = {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 512}


def folder(
    path: Path, config: dict[str, Any] = BERT, pooling: dict[str, Any] | None = None, **more: Any
) -> Path:
    write_json(path / "config.json", config)
    if pooling is not None:
        kind = "sentence_transformers.models."
        modules = [
            {"path": "", "type": kind + "Transformer"},
            {"path": "1_Pooling", "type": kind + "Pooling"},
        ]
        write_json(path / "modules.json", modules)
        write_json(path / "1_Pooling" / "config.json", pooling)
    if more:
        write_json(path / "config_sentence_transformers.json", more)
    return path


def test_a_bare_transformer_is_mean_pooled(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path))
    assert (found.pooling, found.dim, found.positions, found.has_head) == ("mean", 32, 512, False)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({}, "mean"),
    ],
)
def test_old_and_new_names_of_pooling(tmp_path: Path, pooling: dict[str, Any], expected: str) -> None:
    assert read_folder(folder(tmp_path, pooling=pooling)).pooling == expected


@pytest.mark.parametrize("pooling", [{"pooling_mode": ["cls", "mean"]}, {"pooling_mode": "weightedmean"}])
def test_other_poolings_are_refused_by_name(tmp_path: Path, pooling: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="mean"):
        read_folder(folder(tmp_path, pooling=pooling))


def test_roberta_counts_positions_from_its_padding(tmp_path: Path) -> None:
    config = BERT | {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_folder(folder(tmp_path, config)).positions == 512


def test_prompts_by_name_and_by_default(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "passage": "passage: ", "s2s": "same: "}
    found = read_folder(folder(tmp_path, prompts=prompts, default_prompt_name="s2s"))
    assert found.prompt("query", "default") == "query: "
    assert found.prompt("document", "passage") == "passage: "
    assert found.prompt("nothing", "default") == "same: "
    assert found.prompt("nothing") == ""


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        read_folder(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    write_json(path / "config.json", config | {"num_hidden_layers": 3})
    with pytest.raises(ModelError, match=r"encoder\.layer\.2"):
        build(Config(model=str(path))).embed_queries(["rent"])


def test_the_first_query_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    code = (
        "import sys; from embedders.sentence_transformer import Config, build;"
        f"ours = build(Config(model={str(path)!r})); assert 'torch' not in sys.modules;"
        "ours.encode('rent'); assert 'torch' not in sys.modules;"
        "ours.embed_queries(['rent']); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
