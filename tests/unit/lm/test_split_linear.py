"""Linear layers whose few-row products are cut into parts."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from pipeline import machine
from pipeline.lm import split_linear
from pipeline.lm.split_linear import MOST_ROWS, SplitLinear, split


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def on_amd(monkeypatch):
    monkeypatch.setattr(machine, "processor_maker", lambda: "AuthenticAMD")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 48), (1, 1, 48), (2, 7, 48), (1, MOST_ROWS, 48), (1, MOST_ROWS + 1, 48), (1, 0, 48)]
)
def test_a_split_layer_equals_the_stock_one(two_threads, on_amd, shape, bias):
    torch.manual_seed(0)
    stock = nn.Linear(48, 20, bias=bias)
    wanted = stock(states := torch.randn(shape))
    network = nn.Sequential(stock)
    split(network)
    assert type(network[0]) is SplitLinear
    torch.testing.assert_close(network(states), wanted, atol=1e-6, rtol=1e-5)


def test_only_few_rows_on_several_threads_are_split(two_threads, on_amd, monkeypatch):
    network = nn.Sequential(nn.Linear(8, 8))
    split(network)
    products = []
    stock = torch.matmul
    monkeypatch.setattr(split_linear.torch, "matmul", lambda a, b: products.append(a.shape) or stock(a, b))
    network(torch.ones(MOST_ROWS, 8))
    network(torch.ones(MOST_ROWS + 1, 8))
    torch.set_num_threads(1)
    network(torch.ones(1, 8))
    assert products == [(MOST_ROWS, 8)]


def test_weights_stay_where_they_are(on_amd):
    network = nn.Sequential(nn.Linear(8, 8), nn.Embedding(8, 8))
    network[0].weight = network[1].weight  # tied, as those of many language models
    split(network)
    assert network[0].weight is network[1].weight
    assert set(network.state_dict()) == {"0.weight", "0.bias", "1.weight"}


@pytest.mark.parametrize("layer", [nn.Linear(8, 6), nn.Linear(8, 8, dtype=torch.bfloat16)])
def test_what_cannot_be_split_is_left_alone(on_amd, layer):
    network = nn.Sequential(layer)
    split(network)
    assert type(network[0]) is nn.Linear


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_on_other_processors_nothing_is_split(monkeypatch, maker):
    monkeypatch.setattr(machine, "processor_maker", lambda: maker)
    network = nn.Sequential(nn.Linear(8, 8))
    split(network)
    assert type(network[0]) is nn.Linear
