"""Memory for states that are kept: pages of their own, which the system gets back the moment they are freed.

What an allocator has once got it rarely returns, so a cache that lives on it grows past its budget as
passages come and go between the short-lived tensors of forward passes.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch


def pages(size_bytes: int) -> torch.Tensor:
    """Zeros, uint8 (``size_bytes``,), on the CPU."""
    if not size_bytes:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(mmap.mmap(-1, size_bytes), dtype=torch.uint8)  # the tensor keeps the map alive


def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """:func:`torch.stack` into pages of their own; on another device than the CPU as usual."""
    first = tensors[0]
    if first.device.type != "cpu":
        return torch.stack(tensors)
    shape = (len(tensors), *first.shape)
    room = pages(math.prod(shape) * first.element_size()).view(first.dtype).view(shape)
    return torch.stack(tensors, out=room)


def settled(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy in pages of its own; the tensor itself if it has them already, or is on another
    device than the CPU."""
    if tensor.device.type != "cpu" or (tensor.is_contiguous() and _has_pages(tensor)):
        return tensor
    room = pages(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
    return room.copy_(tensor)


def _has_pages(tensor: torch.Tensor) -> bool:
    """Whether it fills memory that is not of torch's allocator, which it then does not resize."""
    storage = tensor.untyped_storage()
    return not storage.resizable() and storage.nbytes() == tensor.nbytes
