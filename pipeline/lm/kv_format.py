"""KV states as they are stored: in the model's own numbers, in 16 bits, in 8 or in 4.

Keys have a few channels that are large for all tokens, values have large tokens, so keys are quantised
for each channel and values for each token (Liu et al. 2024, KIVI, section 3). Steps are asymmetric:
``x = low + step * code``.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from pipeline.errors import ConfigurationError

KvFormat = Literal["native", "float16", "bfloat16", "int8", "int4"]
Tensors = Mapping[str, torch.Tensor]

_GROUP_TOKENS = 128
_GROUP_CHANNELS = 128
_LARGEST_HALF = 60_000.0
_PLAIN = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_LEVELS = {"int8": 255, "int4": 15}


@dataclass(frozen=True, slots=True)
class KvStates:
    """Keys (after rotary positions) and values of one passage in every layer: both (layers, H, T, D)."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens of the passage."""
        return int(self.keys.shape[2])


def check_format(name: str) -> KvFormat:
    """The name, if it is a storage format. Raises ConfigurationError."""
    if name not in get_args(KvFormat):
        raise ConfigurationError(
            f"There is no KV format {name!r}.", remedy=f"Choose from: {', '.join(get_args(KvFormat))}."
        )
    return name  # type: ignore[return-value]


def encode(states: KvStates, kind: KvFormat) -> dict[str, torch.Tensor]:
    """The tensors that are stored for these states, contiguous, on the same device."""
    if kind == "native" or kind in _PLAIN:
        dtype = _PLAIN.get(kind, states.keys.dtype)
        keys, values = (_plain(x, dtype) for x in (states.keys, states.values))
        return {"keys": keys, "values": values}
    groups = states.keys.split(_GROUP_TOKENS, dim=2)
    coded = [_quantise(group, 2, kind) for group in groups]
    keys = torch.cat([code for code, _, _ in coded], dim=2)
    values, value_low, value_step = _quantise(_by_channel_group(states.values), 4, kind)
    return {
        "keys": _packed(keys, kind),
        "key_low": _small(torch.cat([low for _, low, _ in coded], dim=2)),
        "key_step": _small(torch.cat([step for _, _, step in coded], dim=2)),
        "values": _packed(values.reshape(states.values.shape), kind),
        "value_low": _small(value_low),
        "value_step": _small(value_step),
    }


def decode(tensors: Tensors, kind: KvFormat, dtype: torch.dtype) -> KvStates:
    """The states in the model's number format. Exact for ``native``; what was stored, if it is the same."""
    if kind not in _LEVELS:
        return KvStates(tensors["keys"].to(dtype), tensors["values"].to(dtype))
    width = tensors["key_low"].shape[-1]
    keys, values = (_unpacked(tensors[name], kind)[..., :width] for name in ("keys", "values"))
    tokens = keys.shape[2]
    spread = torch.arange(tokens, device=keys.device) // _GROUP_TOKENS
    low, step = (tensors[name].float()[:, :, spread] for name in ("key_low", "key_step"))
    grouped = _by_channel_group(values)
    restored = torch.addcmul(tensors["value_low"].float(), tensors["value_step"].float(), grouped.float())
    return KvStates(
        torch.addcmul(low, step, keys.float()).to(dtype), restored.reshape(values.shape).to(dtype)
    )


def stored_bytes(shape: tuple[int, int, int, int], kind: KvFormat, dtype: torch.dtype) -> int:
    """Exact bytes of what :func:`encode` makes of states (layers, H, T, D) of this dtype."""
    layers, heads, tokens, width = shape
    numbers = layers * heads * tokens * width
    if kind not in _LEVELS:
        size: int = _PLAIN.get(kind, dtype).itemsize
        return 2 * numbers * size
    codes = 2 * numbers if kind == "int8" else 2 * layers * heads * tokens * -(-width // 2)
    key_scales = layers * heads * -(-tokens // _GROUP_TOKENS) * width
    value_scales = layers * heads * tokens * _channel_groups(width)
    return codes + 4 * (key_scales + value_scales)


def _plain(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.float16:
        states = states.clamp(-_LARGEST_HALF, _LARGEST_HALF)
    return states.to(dtype).contiguous()


def _quantise(states: torch.Tensor, dim: int, kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (uint8), lowest value and step of each group along ``dim``."""
    states = states.float()
    low = _small(states.amin(dim, keepdim=True)).float()
    step = _small((states.amax(dim, keepdim=True) - low) / _LEVELS[kind]).float()
    codes = ((states - low) / torch.where(step > 0, step, 1)).round_()
    return codes.clamp_(0, _LEVELS[kind]).to(torch.uint8), low, step


def _small(values: torch.Tensor) -> torch.Tensor:
    """In 16 bits. What does not fit is cut: a model with such states needs the native format."""
    return values.clamp(-_LARGEST_HALF, _LARGEST_HALF).to(torch.float16)


def _channel_groups(width: int) -> int:
    return width // _GROUP_CHANNELS if width % _GROUP_CHANNELS == 0 else 1


def _by_channel_group(values: torch.Tensor) -> torch.Tensor:
    """(layers, H, T, D) as (layers, H, T, groups, D / groups)."""
    return values.reshape(*values.shape[:-1], _channel_groups(values.shape[-1]), -1)


def _packed(codes: torch.Tensor, kind: str) -> torch.Tensor:
    """Two 4-bit codes a byte, along the width."""
    if kind == "int8":
        return codes.contiguous()
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., 0::2] | codes[..., 1::2] << 4


def _unpacked(codes: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "int8":
        return codes
    return torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)
