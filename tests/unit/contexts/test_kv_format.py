"""Storage formats of KV states: size to the byte, error within the step, shapes that do not divide."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.lm.kv_format import KvStates, check_format, decode, encode, stored_bytes

FORMATS = ["native", "float16", "bfloat16", "int8", "int4"]


def random_states(layers=2, heads=3, tokens=20, width=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, layers, heads, tokens, width, generator=generator)
    keys[..., 0] += 40  # a channel that is large for all tokens, as in real models
    return KvStates(keys.to(dtype), values.to(dtype))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    tokens=st.integers(1, 300),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 2, 7, 8, 64, 128, 256]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_size_and_shape_are_as_told(kind, tokens, heads, width, dtype):
    states = random_states(1, heads, tokens, width, dtype)
    stored = encode(states, kind)
    assert sum(t.nbytes for t in stored.values()) == stored_bytes((1, heads, tokens, width), kind, dtype)
    back = decode(stored, kind, dtype)
    assert (back.keys.shape, back.values.shape) == (states.keys.shape, states.values.shape)
    assert back.keys.dtype == back.values.dtype == dtype
    assert back.tokens == tokens


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_error_is_within_half_a_step_of_each_channel_and_token(kind):
    states = random_states(tokens=300, width=32)
    back = decode(encode(states, kind), kind, torch.float32)
    levels = {"int8": 255, "int4": 15}[kind]
    for first in (0, 128, 256):  # keys: by channel, in groups of 128 tokens
        group = states.keys[:, :, first : first + 128]
        step = (group.amax(2, keepdim=True) - group.amin(2, keepdim=True)) / levels
        error = (back.keys[:, :, first : first + 128] - group).abs()
        assert (error <= 0.51 * step + 0.05).all()  # the last term: the lowest value in 16 bits
        assert (error[..., 1:] <= 0.51 * step[..., 1:] + 4e-3).all()
    step = (states.values.amax(3, keepdim=True) - states.values.amin(3, keepdim=True)) / levels
    assert ((back.values - states.values).abs() <= 0.51 * step + 4e-3).all()


def test_native_is_exact_and_the_stored_tensor_itself():
    states = random_states()
    stored = encode(states, "native")
    back = decode(stored, "native", torch.float32)
    assert torch.equal(back.keys, states.keys)
    assert back.values.data_ptr() == stored["values"].data_ptr()


@pytest.mark.parametrize("kind", FORMATS)
def test_constant_and_extreme_states_stay_finite(kind):
    states = KvStates(torch.full((1, 1, 3, 4), 7.0), torch.full((1, 1, 3, 4), 1e30))
    back = decode(encode(states, kind), kind, torch.float32)
    assert torch.isfinite(back.values).all()
    torch.testing.assert_close(back.keys, states.keys, atol=1e-2, rtol=0)


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigurationError, match="int2"):
        check_format("int2")
