"""Float32 products of linear layers by oneDNN, on processors of AMD.

torch computes float32 products with MKL, which leaves the wide registers of processors of AMD unused and
shares few rows badly among threads. oneDNN, which comes with torch and computes its bfloat16 products, does
neither. Outputs differ in the last bits only. ``docs/language_model.md`` has what it brings.

Imports torch, which takes seconds: import this module where a network is about to run.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from pipeline import machine


class OneDnnLinear(nn.Linear):  # type: ignore[misc]
    """A linear layer whose product is :func:`linear`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)


def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As ``torch.nn.functional.linear``; by oneDNN where :func:`pays` and nothing is learnt."""
    if not (pays() and _is_float32_here(input)) or torch.is_grad_enabled():
        return F.linear(input, weight, bias)
    # What torch's own compiler emits for linear layers; there is no public function without conversions.
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


@cache
def pays() -> bool:
    """Whether oneDNN is here, and on a processor of AMD, where it was measured to be faster."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return bool(there and machine.processor_maker() == "AuthenticAMD")


def speed_up(network: nn.Module) -> None:
    """Let the linear layers of a network be computed by :func:`linear`. Weights stay where they are."""
    if not pays():
        return
    for layer in network.modules():
        if type(layer) is nn.Linear and _is_float32_here(layer.weight):
            layer.__class__ = OneDnnLinear  # same parameters, another forward


def _is_float32_here(tensor: torch.Tensor) -> bool:
    return bool(tensor.dtype == torch.float32 and tensor.device.type == "cpu")
