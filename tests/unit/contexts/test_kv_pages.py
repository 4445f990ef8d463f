"""Memory for states that are kept."""

from __future__ import annotations

import pytest
import torch

from pipeline.lm.kv_pages import pages, settled, stacked


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_stacked_equals_stacking(dtype, tokens):
    wide = [(100 * torch.rand(2, 9, 4)).to(dtype) for _ in range(3)]
    strided = [each[:, 9 - tokens :] for each in wide]
    got = stacked(strided)
    assert torch.equal(got, torch.stack(strided))
    assert (got.dtype, got.is_contiguous()) == (dtype, True)


def test_what_has_pages_stays_where_it_is():
    made = stacked([torch.rand(2, 3) for _ in range(4)])
    assert settled(made) is made
    reshaped = made.view(8, 3)
    assert settled(reshaped) is reshaped


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(2, 3).to(torch.bfloat16),
        torch.randn(4, 3)[:2],
        torch.randn(3, 2).T,
        stacked([torch.randn(2, 3) for _ in range(4)])[1],
        stacked([torch.randn(3) for _ in range(2)]).T,
        pages(24).view(torch.float32).view(2, 3).expand(4, 2, 3),
    ],
    ids=["plain", "bfloat16", "part", "turned", "part of pages", "turned pages", "repeated pages"],
)
def test_everything_else_is_copied(tensor):
    got = settled(tensor)
    assert torch.equal(got, tensor)
    assert got.is_contiguous()
    assert place(got) != place(tensor)
    assert got.untyped_storage().nbytes() == got.nbytes
    assert settled(got) is got


def test_nothing_settles_as_nothing():
    empty = settled(torch.empty(2, 0, 4, dtype=torch.float16))
    assert (empty.shape, empty.dtype) == ((2, 0, 4), torch.float16)


def test_another_device_is_left_alone():
    elsewhere = torch.empty(2, 3, device="meta")
    assert settled(elsewhere) is elsewhere
    assert stacked([elsewhere, elsewhere]).device.type == "meta"
