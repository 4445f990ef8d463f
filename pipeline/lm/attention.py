"""The one place that touches the attention of transformers: what every layer computes, and may be told.

:func:`install` gives a network one attention function and one mask function under the same name (with the
attention function alone transformers passes no mask, and a prompt read in chunks is silently wrong). The
function follows the :class:`Plan` of the forward pass that is running, which :func:`following` sets for
that pass only. Without a plan it computes what the stock model computes.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from pipeline.errors import ModelError
from pipeline.lm.few_rows import attend_few, attend_grouped
from pipeline.lm.packing import Segments, attend_packed

NAME = "longleaf"
"""The name under which transformers knows the functions below."""

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"})
"""``model_type`` of the families whose equality with the stock attention is tested."""

_FEW_ROWS = 17  # the longest draft and the token before it
_BLOCK_ELEMENTS = 2**22
"""Most attention weights held at once where they are computed one by one (16 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class Attending:
    """The attention of one layer in one forward pass.

    ``query`` is (B, Hq, L, D); ``key`` and ``value`` are (B, Hkv, N, D) with Hkv dividing Hq, all after
    rotary embedding, the L new tokens last among the N. ``mask`` is (B, 1 or Hq, L, N), true where a query
    may look, or None where every query sees what stands before it. ``bias`` is added to the logits and
    broadcasts to (B, Hq, L, N). Logits are ``softcap * tanh(q.k * scaling / softcap) + bias``. ``start`` is
    the number of tokens read before these L, so that key ``j`` is the token ``key_start + j`` of the prompt.
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float
    softcap: float | None = None
    bias: torch.Tensor | None = None
    start: int = 0

    @property
    def key_start(self) -> int:
        """The token of the prompt that the first key belongs to: above 0 in a sliding window."""
        return int(self.start + self.query.shape[2] - self.key.shape[2])


class Observer(Protocol):
    """Looks at every layer's attention while a prompt is read."""

    def see(self, attending: Attending) -> None:
        """Called once a layer and forward pass, with the attention as it is about to be computed."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request does to the attention of every layer. Each part works alone; the default is nothing.

    ``temperature`` divides the logits. ``positions`` maps token indices (L,) to the position ids the model
    is given. ``adapt`` replaces query, key, mask, scaling or bias of a layer before it is computed; observers
    see the result. ``attend`` computes the output (B, Hq, L, D) itself.

    ``packs``: whether it holds for whatever part of the keys a layer sees (:attr:`Attending.key_start`), so
    that other requests may be read in the same pass. Tokens before ``begins`` are read as without the plan.
    """

    observers: tuple[Observer, ...] = ()
    temperature: float = 1.0
    positions: Callable[[torch.Tensor], torch.Tensor] | None = None
    adapt: Callable[[Attending], Attending] | None = None
    attend: Callable[[Attending], torch.Tensor] | None = None
    packs: bool = False
    begins: int = 0


Following = tuple[Plan, int]
"""A plan, and how many tokens were read before this pass."""
_ACTIVE: ContextVar[Following | None] = ContextVar("attention_plan", default=None)


@contextlib.contextmanager
def following(plan: Plan | None, start: int = 0) -> Iterator[None]:
    """Let forward passes inside follow ``plan``; ``start`` tokens were read before. For one pass at a time,
    and never across a ``yield``: the plan belongs to this thread (or task) and ends here."""
    token = _ACTIVE.set(None if plan is None else (plan, start))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def install(network: Any) -> bool:  # noqa: ANN401 - a causal language model of transformers
    """Give ``network`` this module's attention if its family is one of :data:`FAMILIES`; whether it was."""
    if network.config.model_type not in FAMILIES:
        return False
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)
    return True


def require(network: Any, purpose: str) -> None:  # noqa: ANN401 - a causal language model of transformers
    """Raise ModelError if ``network`` cannot follow a plan, naming what it was wanted for."""
    if network.config._attn_implementation != NAME:
        raise ModelError(
            f"{purpose} needs the model's attention, which is not supported for the family "
            f"{network.config.model_type!r}.",
            remedy=f"Use a model of one of these: {', '.join(sorted(FAMILIES))}; or another order.",
        )


def attend(call: Attending) -> torch.Tensor:
    """Softmax attention as the stock model computes it, (B, Hq, L, D), without copies of shared keys."""
    if call.softcap is not None:
        return attend_lse(call)[0]
    query, key, value, mask = call.query, call.key, call.value, _float_mask(call)
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    causal, shared = mask is None and length > 1, {}
    if groups > 1:
        if query.device.type == "cpu" and length <= _FEW_ROWS and not causal:
            return attend_grouped(query, key, value, mask, call.scaling)
        if query.device.type == "cpu" or (mask is None and query.dtype != torch.float32):
            shared = {"enable_gqa": True}
        elif mask is not None and length <= _FEW_ROWS and mask.shape[1] == 1:
            return attend_few(query, key, value, mask, call.scaling)
        elif mask is None and length == 1:
            # Other fused kernels of GPUs take no shared keys; queries that share a key become rows of it.
            query = query.reshape(query.shape[0], key.shape[1], groups, -1)
        else:
            key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=call.scaling, is_causal=causal, **shared
    )
    return out.reshape(*call.query.shape[:3], value.shape[-1])


def attend_lse(call: Attending) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, Hq, L, D) and the logarithm of each row's softmax denominator, float32 (B, Hq, L).

    Attention over two sets of keys is ``softmax`` over both logarithms times the two outputs, so states
    from different places can be attended to without being put together. Computed in blocks of rows.
    """
    outs, lses = [], []
    for rows in _blocks(call, torch.arange(call.query.shape[2], device=call.query.device)):
        scores = logits(call, rows)
        lse = scores.logsumexp(-1)
        weights = (scores - lse[..., None]).exp().to(call.value.dtype)
        outs.append(_weighted(weights, call.value))
        lses.append(lse)
    return torch.cat(outs, 2), torch.cat(lses, 2)


def logits(call: Attending, rows: torch.Tensor) -> torch.Tensor:
    """Attention logits of the query rows with these indices, float32 (B, Hq, R, N); the least finite
    number where a row may not look."""
    batch, heads, _, width = call.query.shape
    shared = call.key.shape[1]
    query = call.query[:, :, rows].float().reshape(batch, shared, -1, width)
    scores = (query @ call.key.float().transpose(-1, -2)) * call.scaling
    scores = scores.reshape(batch, heads, len(rows), call.key.shape[2])
    if call.softcap is not None:
        scores = (scores / call.softcap).tanh() * call.softcap
    if call.bias is not None:
        bias = call.bias
        scores = scores + (bias[:, :, rows] if bias.shape[2] > 1 else bias).float()
    if call.mask is not None:
        allowed = call.mask[:, :, rows]
        if allowed.dtype != torch.bool:
            return scores + allowed.float()
    else:
        ahead = torch.arange(call.key.shape[2], device=rows.device) - (
            call.key.shape[2] - call.query.shape[2]
        )
        allowed = ahead <= rows[:, None]
    return scores.masked_fill(~allowed, torch.finfo(torch.float32).min)


def weight_blocks(call: Attending, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Attention weights of the query rows with these indices, a block at a time: the block's rows (R,) and
    float32 (B, Hq, R, N). No more than a fixed number of weights exists at any moment."""
    for block in _blocks(call, rows):
        yield block, logits(call, block).softmax(-1)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | Segments,
    value: torch.Tensor | Segments,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    position_ids: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: (B, L, Hq, D) and no weights."""
    if (turns := getattr(module, "head_turns", None)) is not None:  # of pipeline.lm.head_turns
        query = turns(query, key, position_ids)
    one = functools.partial(_attended, module, scaling=scaling, softcap=softcap)
    if isinstance(key, Segments):
        return attend_packed(query, key, value, sliding_window, one), None
    return one(query, key, value, attention_mask, following=_ACTIVE.get())


def _attended(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    following: Following | None,
    scaling: float | None,
    softcap: float | None,
) -> tuple[torch.Tensor, None]:
    """Attention of one request, or of several that are padded to one length."""
    call = Attending(
        layer=int(module.layer_idx),
        query=query,
        key=key,
        value=value,
        mask=attention_mask,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
    )
    out = attend(call) if following is None else _planned(following[0], replace(call, start=following[1]))
    return out.transpose(1, 2).contiguous(), None


def _planned(plan: Plan, call: Attending) -> torch.Tensor:
    if plan.adapt is not None:
        call = plan.adapt(call)
    if plan.temperature != 1:
        call = tempered(call, plan.temperature)
    for observer in plan.observers:
        observer.see(call)
    return attend(call) if plan.attend is None else plan.attend(call)


def tempered(call: Attending, temperature: float) -> Attending:
    """The same attention with logits divided by ``temperature``, the bias included."""
    return replace(
        call,
        scaling=call.scaling / temperature,
        softcap=None if call.softcap is None else call.softcap / temperature,
        bias=None if call.bias is None else call.bias / temperature,
    )


def _float_mask(call: Attending) -> torch.Tensor | None:
    """Mask and bias as scaled_dot_product_attention takes them together."""
    if call.bias is None:
        return call.mask
    bias, least = call.bias.to(call.query.dtype), torch.finfo(call.query.dtype).min
    allowed = call.mask
    if allowed is None:
        rows, keys = call.query.shape[2], call.key.shape[2]
        if rows == 1:
            return bias
        allowed = torch.ones(rows, keys, dtype=torch.bool, device=bias.device).tril(keys - rows)[None, None]
    if allowed.dtype != torch.bool:
        return bias + allowed
    return bias.expand(*bias.shape[:2], *allowed.shape[2:]).masked_fill(~allowed, least)


def _weighted(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Weights (B, Hq, R, N) times values (B, Hkv, N, D)."""
    batch, heads, rows, keys = weights.shape
    mixed = weights.reshape(batch, value.shape[1], -1, keys) @ value
    return mixed.reshape(batch, heads, rows, value.shape[-1])


def _blocks(call: Attending, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    batch, heads = call.query.shape[:2]
    blocks: tuple[torch.Tensor, ...] = rows.split(
        max(1, _BLOCK_ELEMENTS // (batch * heads * call.key.shape[2]))
    )
    return blocks
