"""Position methods at work in a network of transformers.

Every rotary family of transformers computes its angles in one submodule, ``rotary_emb``, which is asked
for cosines and sines of ``position_ids``. It is replaced by :class:`Rotary`, whose frequencies are the
method's; layers that look at near tokens only (``sliding_attention``) keep theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import Embedding

from pipeline.errors import ConfigurationError
from pipeline.positions.absolute import interpolated
from pipeline.positions.choice import AbsoluteMethod, Choice, Method, choose
from pipeline.positions.declared import long_rope_of, rope_of
from pipeline.positions.ms_poe import MsPoe
from pipeline.positions.rotary import DynamicNtk, LongRope, Native, Rope, SelfExtend

NEAR = "sliding_attention"


def extend(network: Any, method: Method, rope: Rope, window_tokens: int, *, decoder: bool = False) -> None:  # noqa: ANN401 - of transformers
    """Let a loaded network read ``window_tokens`` by the method; ``decoder`` says that it has a KV cache.

    Keys in a cache were turned when they came, so there the methods whose angles depend on the length of
    the document (dynamic NTK) are refused, and LongRoPE takes its long factors always.
    Raises ConfigurationError for a network whose angles are not those of ``rope``.
    """
    if isinstance(method, Native):
        return
    _require_fit(method, rope, decoder=decoder)
    network.position_method = str(method)
    network.config.max_position_embeddings = window_tokens
    owners = _owners(network)
    for owner in owners:
        _require_same(owner.rotary_emb, rope, type(network).__name__)
    if isinstance(method, MsPoe):
        return
    for owner in owners:
        fixed_tokens = window_tokens if decoder else None
        owner.rotary_emb = Rotary(method, rope, owner.rotary_emb, fixed_tokens)
    if isinstance(method, SelfExtend):
        from pipeline.positions.self_extend import register

        near = any(owner.rotary_emb.near_as_stock for owner in owners)
        network.set_attn_implementation(register(method, rope, near_as_stock=near))


def settle(network: Any, trained_tokens: int) -> None:  # noqa: ANN401 - of transformers
    """Give a network whose own positions are LongRoPE the same, chosen by document.

    Stock networks choose between short and long factors by the longest sequence of a batch.
    """
    own = long_rope_of(network.config.to_dict(), trained_tokens)
    if own is not None:
        for owner in _owners(network):
            owner.rotary_emb = Rotary(*own, owner.rotary_emb, None)


def extend_decoder(network: Any, spec: str, window_tokens: int | None = None) -> Choice:  # noqa: ANN401 - of transformers
    """Read a spec and apply it to a causal language model; the choice says which window that gives.

    Raises ConfigurationError as :func:`pipeline.positions.choose` and :func:`extend` do.
    """
    choice = choose_for_decoder(network.config, spec, window_tokens)
    if not isinstance(choice.method, Native):
        extend(network, choice.method, _trained_rope(network.config), choice.window_tokens, decoder=True)
    return choice


def choose_for_decoder(config: Any, spec: str, window_tokens: int | None = None) -> Choice:  # noqa: ANN401 - of transformers
    """Read a spec for the language model of a configuration, before there is a network.

    Raises ConfigurationError as :func:`pipeline.positions.choose` does, and for methods that a language
    model cannot follow.
    """
    trained = int(config.get_text_config(decoder=True).max_position_embeddings)
    choice = choose(spec, "rotary", trained, window_tokens)
    if not isinstance(choice.method, Native):
        _require_fit(choice.method, _trained_rope(config), decoder=True)
    return choice


def _trained_rope(config: Any) -> Rope:  # noqa: ANN401 - of transformers
    text = config.get_text_config(decoder=True)
    return rope_of(text.to_dict(), int(text.max_position_embeddings))


def _require_fit(method: Method, rope: Rope, *, decoder: bool) -> None:
    if decoder and isinstance(method, DynamicNtk):
        raise ConfigurationError(
            f"{str(method)!r} depends on the length of the whole text, which grows while a model writes.",
            remedy=f"Use ntk:{method.factor:g} or yarn:{method.factor:g} for a language model.",
        )
    if isinstance(method, LongRope) and len(method.long) != rope.dim // 2:
        raise ConfigurationError(
            f"{str(method)!r} has {len(method.long)} factors; this model has {rope.dim // 2} frequencies.",
            remedy="Use factors that were found for this model.",
        )
    if isinstance(method, MsPoe) and not decoder:
        raise ConfigurationError(
            f"{str(method)!r} turns the heads of a language model; this is an embedding model.",
            remedy="Use ntk, yarn or pi.",
        )


def extend_matrix(network: Any, method: Method, trained_tokens: int) -> None:  # noqa: ANN401 - of transformers
    """Let a loaded network with a matrix of positions read more, by a method of absolute positions.

    Rows before the first position that is used (RoBERTa counts from 2) stay where they are. Raises
    ConfigurationError for a network without such a matrix.
    """
    if isinstance(method, Native):
        return
    found = [m for m in network.modules() if isinstance(getattr(m, "position_embeddings", None), Embedding)]
    if len(found) != 1 or not isinstance(method, AbsoluteMethod):
        raise ConfigurationError(
            f"{type(network).__name__} has no matrix of positions that could be replaced.",
            remedy="Leave positions at native.",
        )
    (owner,) = found
    old = owner.position_embeddings.weight.detach()
    unused = len(old) - trained_tokens
    rows = interpolated(old[unused:].float().cpu().numpy(), method.rows(trained_tokens))
    matrix = torch.cat((old[:unused], torch.from_numpy(rows).to(old)))
    owner.position_embeddings = Embedding.from_pretrained(
        matrix, padding_idx=owner.position_embeddings.padding_idx
    )
    for name in ("position_ids", "token_type_ids"):
        buffer = getattr(owner, name, None)
        if buffer is not None:
            numbers = torch.arange(len(matrix), device=buffer.device) * (name == "position_ids")
            setattr(owner, name, numbers[None])
    network.config.max_position_embeddings = len(matrix)


class Rotary(torch.nn.Module):  # type: ignore[misc]
    """Cosines and sines of a method, in place of a network's own.

    The length of a document is that of its row of ``position_ids``, where padding has position 0: so the
    same document has the same angles in any batch. Angles are float32 whatever the network computes in.
    """

    def __init__(self, method: Method, rope: Rope, stock: torch.nn.Module, fixed_tokens: int | None) -> None:
        super().__init__()
        self._method, self._rope, self._fixed_tokens = method, rope, fixed_tokens
        self._near = stock if hasattr(stock, f"{NEAR}_inv_freq") else None
        self._by_length = isinstance(method, DynamicNtk | LongRope) and fixed_tokens is None
        self._angles = lru_cache(maxsize=64)(self._made)

    @property
    def near_as_stock(self) -> bool:
        """Whether layers that look at near tokens only keep their own rotation."""
        return self._near is not None

    def _made(self, tokens: int) -> tuple[torch.Tensor, float]:
        rotation = self._method.rotation(self._rope, tokens)  # type: ignore[union-attr]
        return torch.from_numpy(rotation.frequencies).float(), rotation.scale

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``(B, T, dim)`` for positions ``(B, T)``, in the type of ``x``."""
        if layer_type == NEAR and self._near is not None:
            near: tuple[torch.Tensor, torch.Tensor] = self._near(x, position_ids, layer_type)
            return near
        if isinstance(self._method, SelfExtend):  # its attention function turns them
            shape = (*position_ids.shape, self._rope.dim)
            return torch.ones(shape, dtype=x.dtype, device=x.device), torch.zeros(
                shape, dtype=x.dtype, device=x.device
            )
        if self._by_length:
            rows = [self._angles(int(row.max()) + 1) for row in position_ids]
            frequencies = torch.stack([f for f, _ in rows])[:, None]  # (B, 1, dim / 2)
            scale = rows[0][1]
        else:
            frequencies, scale = self._angles(self._fixed_tokens or self._rope.trained_tokens)
        angles = position_ids[..., None].float() * frequencies.to(x.device)
        both = torch.cat((angles, angles), dim=-1)
        return (both.cos() * scale).to(x.dtype), (both.sin() * scale).to(x.dtype)


def _owners(network: Any) -> list[Any]:  # noqa: ANN401 - of transformers
    owners = [module for module in network.modules() if hasattr(module, "rotary_emb")]
    if not owners:
        raise ConfigurationError(
            f"{type(network).__name__} has no rotary positions that could be replaced.",
            remedy="Leave positions at native.",
        )
    return owners


def _require_same(stock: torch.nn.Module, rope: Rope, name: str) -> None:
    """The network's own angles are those that the configuration promises."""
    own = getattr(stock, "full_attention_inv_freq", None)
    own = getattr(stock, "inv_freq", None) if own is None else own
    promised = rope.frequencies()
    if own is None or own.shape != promised.shape or not np.allclose(own.float().cpu(), promised, rtol=1e-2):
        raise ConfigurationError(
            f"The rotary positions of {name} are not plain RoPE of base {rope.theta:g}.",
            remedy="Leave positions at native.",
        )
