"""Linear layers whose products of a few rows are cut into parts that the processor's threads share.

Reading a question, writing a token and verifying a draft multiply a few rows with every weight of a network.
MKL, which computes torch's float32 products, gains little by a second thread there on processors of AMD; as a
batch of products with parts of the weight, which are views, the same work keeps all threads busy. Outputs
differ in the last bits only. Measured with two threads; with more than there are parts nothing is cut.
``docs/language_model.md`` has what it brings.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline import machine

MOST_ROWS = 64
"""Products of more rows use all threads as they are."""
PARTS = 4
"""How many parts a weight is cut into: enough for a few threads, and few enough to remain large."""


class SplitLinear(nn.Linear):  # type: ignore[misc]
    """Computes products of at most ``MOST_ROWS`` rows in ``PARTS`` parts; see the module."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        rows = input.numel() // self.in_features
        if not (0 < rows <= MOST_ROWS and 1 < torch.get_num_threads() <= PARTS):
            return super().forward(input)
        parts = self.weight.view(PARTS, -1, self.in_features).transpose(1, 2)
        cut = torch.matmul(input.reshape(rows, -1), parts)  # (parts, rows, out of one part)
        out = cut.transpose(0, 1).reshape(*input.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


def share_threads(network: nn.Module) -> None:
    """Let threads share the products of a network's linear layers, where that was measured to pay: float32
    on a processor of AMD. Weights stay where they are."""
    if machine.processor_maker() != "AuthenticAMD":
        return
    for layer in network.modules():
        if type(layer) is nn.Linear and _can_be_split(layer):
            layer.__class__ = SplitLinear  # same parameters, another forward


def _can_be_split(layer: nn.Linear) -> bool:
    weight = layer.weight
    return bool(
        weight.device.type == "cpu" and weight.dtype == torch.float32 and layer.out_features % PARTS == 0
    )
