"""What a configuration of transformers (``config.json``) says about positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipeline.errors import ConfigurationError
from pipeline.positions.rotary import LongRope, Rope

Declared = Literal["absolute", "rotary", "other"]

# Families that transformers gives a base when the file names none, with that base.
_DEFAULT_THETA = {
    "nomic_bert": 1e3,
    "gte": 160_000.0,
    "jina_embeddings_v3": 20_000.0,
    "modernbert": 160_000.0,
}
_ROTARY_KEYS = ("rope_parameters", "rope_theta", "rope_scaling", "rotary_emb_base", "global_rope_theta")
# Positions that are neither rows of a matrix nor turns: buckets of distances, or slopes.
_OTHER_FAMILIES = ("t5", "mt5", "umt5", "deberta", "deberta-v2", "bloom", "mpt", "xlnet")


def kind_of(config: Mapping[str, Any]) -> Declared:
    """Whether positions are rows of a trained matrix, turns of queries and keys, or something else."""
    family = str(config.get("model_type", ""))
    if family in _DEFAULT_THETA or any(config.get(key) for key in _ROTARY_KEYS):
        return "rotary"
    if family in _OTHER_FAMILIES or config.get("position_embedding_type", "absolute") != "absolute":
        return "other"
    return "absolute"


def rope_of(config: Mapping[str, Any], trained_tokens: int) -> Rope:
    """What a configuration of transformers says about rotary positions.

    Raises ConfigurationError for a model without them, or whose positions are stretched already.
    """
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "full_attention" in parameters:
        parameters = parameters["full_attention"]
    theta = parameters.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base")
    if theta is None:
        theta = _DEFAULT_THETA.get(str(config.get("model_type")))
    if theta is None:
        raise ConfigurationError(
            f"The model type {config.get('model_type')!r} says nothing of rotary positions.",
            remedy="Leave positions at native.",
        )
    if parameters.get("rope_type", "default") != "default":
        raise ConfigurationError(
            f"This model's own positions are already stretched ({parameters['rope_type']!r}).",
            remedy="Leave positions at native.",
        )
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    width = int(config.get("head_dim") or (config.get("hidden_size") or config.get("n_embd") or 0) // heads)
    dim = int(width * float(parameters.get("partial_rotary_factor") or 1.0))
    return Rope(dim, float(theta), int(parameters.get("original_max_position_embeddings") or trained_tokens))


def long_rope_of(config: Mapping[str, Any], window_tokens: int) -> tuple[LongRope, Rope] | None:
    """The LongRoPE that a configuration declares as its own, if it does."""
    parameters = config.get("rope_parameters") or {}
    if parameters.get("rope_type") != "longrope":
        return None
    trained = int(parameters["original_max_position_embeddings"])
    lists = [tuple(float(x) for x in parameters[name]) for name in ("long_factor", "short_factor")]
    factor = float(parameters.get("factor") or window_tokens / trained)
    return LongRope(factor, *lists), Rope(2 * len(lists[0]), float(parameters["rope_theta"]), trained)
