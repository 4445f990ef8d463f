"""What the files of a sentence-transformers model declare, read without importing a framework.

Format: ``modules.json`` lists the modules in order, each with a folder; ``config.json`` is the
transformer's, ``config_sentence_transformers.json`` holds prompts. A folder without ``modules.json`` is
a bare transformer, which the library mean-pools, and so do we.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.positions.declared import Declared, kind_of

POOLINGS = ("mean", "cls", "lasttoken", "max")
_LEGACY_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
WIDTH_KEYS = ("hidden_size", "d_model", "dim", "n_embd")
_PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")
# These count positions from padding_idx + 1, so two of the table's rows are never used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


@dataclass(frozen=True, slots=True)
class EncoderFolder:
    """A model folder. ``positions`` is the most tokens of one sequence, special tokens included.

    ``pooling`` is one of ``POOLINGS``; ``has_head`` says that further modules (a Dense layer) follow.
    """

    path: Path
    config: Mapping[str, Any]
    dim: int
    positions: int
    pooling: str = "mean"
    include_prompt: bool = True
    has_head: bool = False
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, such as ``bert``."""
        return str(self.config.get("model_type", ""))

    @property
    def position_kind(self) -> Declared:
        """Whether positions are rows of a matrix, rotations, or something else."""
        return kind_of(self.config)

    def prompt(self, *names: str) -> str:
        """The first of the named prompts that the model declares, else nothing."""
        return next((self.prompts[name] for name in names if name in self.prompts), "")


def read_folder(path: Path) -> EncoderFolder:
    """Read the declarations. Raises ModelError when they are missing or ask for what we cannot do."""
    config = _json(path / "config.json")
    if not config:
        raise ModelError(
            f"{path} has no config.json, so it is no model folder.",
            remedy="Point the model option at a folder as SentenceTransformer.save() writes it.",
        )
    modules = json.loads((path / "modules.json").read_text()) if (path / "modules.json").exists() else []
    types = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    folders = {kind: path / module["path"] for kind, module in zip(types, modules, strict=True)}
    pooling = _json(folders["Pooling"] / "config.json") if "Pooling" in folders else {}
    transformer = folders.get("Transformer", path)
    sentence = _json(path / "config_sentence_transformers.json")
    prompts = {name: text for name, text in (sentence.get("prompts") or {}).items() if text}
    if sentence.get("default_prompt_name") in prompts:
        prompts["default"] = prompts[sentence["default_prompt_name"]]
    width = next((int(config[key]) for key in WIDTH_KEYS if config.get(key)), 0)
    outputs = [_json(folder / "config.json").get("out_features") for folder in folders.values()]
    return EncoderFolder(
        path=path,
        config=config,
        dim=int(next((n for n in reversed(outputs) if n), width)),
        positions=_positions(config),
        pooling=_pooling(pooling, path),
        include_prompt=bool(pooling.get("include_prompt", True)),
        has_head=any(kind not in _PLAIN_MODULES for kind in types),
        lower_case=bool(_json(transformer / "sentence_bert_config.json").get("do_lower_case", False)),
        prompts=prompts,
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    loaded = json.loads(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}


def _positions(config: Mapping[str, Any]) -> int:
    limit = int(config.get("max_position_embeddings") or config.get("n_positions") or 512)
    if config.get("model_type") in _OFFSET_POSITIONS:
        limit -= int(config.get("pad_token_id", 1)) + 1
    return limit


def _pooling(config: Mapping[str, Any], path: Path) -> str:
    legacy = [name for key, name in _LEGACY_POOLINGS.items() if config.get(key)]
    declared = config.get("pooling_mode") or legacy or ["mean"]
    modes = [declared] if isinstance(declared, str) else list(declared)
    # Dividing by the root of the length instead of the length leaves the direction as it is.
    modes = ["mean" if mode == "mean_sqrt_len_tokens" else str(mode) for mode in modes]
    if len(modes) > 1 or modes[0] not in POOLINGS:
        raise ModelError(
            f"The model in {path} pools by {'+'.join(modes)}, which is not supported.",
            remedy=f"Choose a model that pools by one of: {', '.join(POOLINGS)}.",
        )
    return modes[0]
