"""Position methods against transformers' own functions, the papers' numbers and plain definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.positions import (
    DynamicNtk,
    Grouped,
    LongRope,
    Native,
    Ntk,
    ParallelWindows,
    PositionInterpolation,
    Recurrent,
    Rope,
    SelfExtend,
    Yarn,
    choose,
    interpolated,
    least_base,
    longest_reach,
    shortfall,
)

ROPE = Rope(dim=64, theta=10_000.0, trained_tokens=2048)
LONG = tuple(np.linspace(1, 5, 32).tolist())
SHORT = tuple(np.linspace(1, 1.2, 32).tolist())


def transformers_says(parameters: dict[str, object], tokens: int | None = None) -> tuple[np.ndarray, float]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=2048,
        rope_parameters={"rope_theta": 10_000.0, **parameters},
    )  # fmt: skip
    frequencies, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, seq_len=tokens)
    return frequencies.numpy(), scale


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0, 8.5])
@pytest.mark.parametrize("tokens", [100, 2048, 5000, 16_384])
def test_frequencies_are_those_of_transformers(factor: float, tokens: int) -> None:
    original = {"original_max_position_embeddings": 2048}
    lists = {"long_factor": list(LONG), "short_factor": list(SHORT)}
    pairs = [
        (PositionInterpolation(factor), {"rope_type": "linear", "factor": factor}),
        (DynamicNtk(factor), {"rope_type": "dynamic", "factor": factor}),
        (Yarn(factor), {"rope_type": "yarn", "factor": factor, **original}),
        (
            Yarn(factor, beta_fast=16, beta_slow=2),
            {"rope_type": "yarn", "factor": factor, "beta_fast": 16, "beta_slow": 2, **original},
        ),
        (LongRope(factor, LONG, SHORT), {"rope_type": "longrope", "factor": factor, **lists, **original}),
    ]
    for method, parameters in pairs:
        frequencies, scale = transformers_says(parameters, tokens)
        ours = method.rotation(ROPE, tokens)
        np.testing.assert_allclose(ours.frequencies, frequencies, rtol=2e-5, err_msg=str(method))
        assert ours.scale == pytest.approx(scale, rel=1e-9), str(method)


def test_static_ntk_keeps_the_fastest_pair_and_interpolates_the_slowest() -> None:
    """YaRN, eq. 16: the base is chosen so that the last pair is interpolated by exactly the factor."""
    plain, ours = ROPE.frequencies(), Ntk(4).rotation(ROPE, 1).frequencies
    assert ours[0] == plain[0] == 1
    assert ours[-1] == pytest.approx(plain[-1] / 4, rel=1e-12)
    theta = 10_000 * 4 ** (64 / 62)
    np.testing.assert_allclose(ours, [theta ** (-2 * i / 64) for i in range(32)], rtol=1e-12)


def test_by_parts_is_yarn_without_its_temperature() -> None:
    yarn, parts = Yarn(8).rotation(ROPE, 1), Yarn(8, temperature=False).rotation(ROPE, 1)
    np.testing.assert_array_equal(yarn.frequencies, parts.frequencies)
    assert (yarn.scale, parts.scale) == (pytest.approx(0.1 * math.log(8) + 1), 1.0)
    turns = 2048 * ROPE.frequencies() / (2 * math.pi)
    np.testing.assert_allclose(yarn.frequencies[turns > 36], ROPE.frequencies()[turns > 36], rtol=1e-12)
    np.testing.assert_allclose(yarn.frequencies[turns < 0.7], ROPE.frequencies()[turns < 0.7] / 8, rtol=1e-12)


def test_a_factor_of_one_changes_nothing() -> None:
    for method in (PositionInterpolation(1), Ntk(1), DynamicNtk(1), Yarn(1), SelfExtend(1, 512)):
        rotation = method.rotation(ROPE, 2048)
        np.testing.assert_allclose(rotation.frequencies, ROPE.frequencies(), rtol=1e-12)
        assert rotation.scale == 1
        assert method.reach(2048) == 2048


def test_dynamic_ntk_at_its_reach_is_at_least_static_ntk() -> None:
    """With factor 1 the formula is static NTK by ``tokens / trained``."""
    np.testing.assert_allclose(
        DynamicNtk(1).rotation(ROPE, 8192).frequencies, Ntk(4).rotation(ROPE, 8192).frequencies, rtol=1e-12
    )
    np.testing.assert_array_equal(DynamicNtk(4).rotation(ROPE, 2000).frequencies, ROPE.frequencies())


def test_absolute_positions_are_their_definitions() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    for method, expected in (
        (Grouped(3), [i // 3 for i in range(18)]),
        (Recurrent(3), [i % 6 for i in range(18)]),
        (Native(), list(range(6))),
        (ParallelWindows(), list(range(6))),
    ):
        np.testing.assert_array_equal(interpolated(matrix, method.rows(6)), matrix[expected])
    ours = interpolated(matrix, PositionInterpolation(4).rows(6))
    assert ours.shape == (24, 3)
    for m in range(24):
        low, share = divmod(m / 4, 1)
        high = min(int(low) + 1, 5)  # beyond the last row there is nothing to go towards
        expected = matrix[int(low)] * (1 - share) + matrix[high] * share
        np.testing.assert_allclose(ours[m], expected, atol=1e-6)
    np.testing.assert_array_equal(ours[::4], matrix)


def test_the_bound_on_the_base_is_the_papers() -> None:
    """Men et al. 2024, table 2 (heads 128 wide): 4.3e3 for 1k, 2.7e4 for 4k, 8.4e4 for 8k."""
    for tokens, base in ((1024, 4.3e3), (4096, 2.7e4), (8192, 8.4e4)):
        assert least_base(128, tokens) == pytest.approx(base, rel=0.07)


def test_a_factor_that_cannot_reach_is_told() -> None:
    rope = Rope(128, 10_000.0, 2048)  # reaches 1,9xx by the bound, nearly its trained length
    assert 1024 < longest_reach(rope.frequencies(), 4096) < 4096
    told = shortfall(PositionInterpolation(1.5), rope, 16_384)
    assert "pi:1.5" in told
    assert "16,384" in told
    assert shortfall(Ntk(32), rope, 4096) == ""
    assert shortfall(Native(), rope, 2048) == shortfall(SelfExtend(8, 512), rope, 8192) == ""


def test_specs_name_methods_and_windows(tmp_path: Path) -> None:
    for spec, kind, window, method, reached in (
        ("native", "absolute", None, Native(), 512),
        ("pcw", "absolute", 256, ParallelWindows(), 256),
        ("pi:4", "absolute", None, PositionInterpolation(4), 2048),
        ("grouped:2", "absolute", 1000, Grouped(2), 1000),
        ("recurrent", "absolute", 2048, Recurrent(4), 2048),
        ("ntk:8", "rotary", None, Ntk(8), 4096),
        ("dynamic_ntk", "rotary", 1024, DynamicNtk(2), 1024),
        ("yarn:4", "rotary", None, Yarn(4), 2048),
        ("yarn:4:16:2", "rotary", None, Yarn(4, True, 16, 2), 2048),
        ("by_parts:4", "rotary", None, Yarn(4, temperature=False), 2048),
        ("self_extend:8:128", "rotary", None, SelfExtend(8, 128), 3200),
        ("self_extend", "rotary", 2048, SelfExtend(5, 128), 2048),
    ):
        choice = choose(spec, kind, 512, window)
        assert (choice.method, choice.window_tokens) == (method, reached), spec
        assert choose(str(method), kind, 512).method == method
    file = tmp_path / "factors.json"
    file.write_text(json.dumps({"factor": 4, "long_factor": LONG, "short_factor": SHORT}))
    found = choose(f"longrope:{file}", "rotary", 512)
    assert (found.method, found.window_tokens) == (LongRope(4, LONG, SHORT), 2048)
    other = LongRope(4, LONG, LONG)
    assert str(found.method) != str(other)  # the fingerprint tells the lists apart


@pytest.mark.parametrize(
    ("spec", "kind", "window", "told"),
    [
        ("yarm:4", "rotary", None, "Did you mean 'yarn'"),
        ("yarn:0.5", "rotary", None, "below 1"),
        ("yarn:x", "rotary", None, "not written"),
        ("yarn:4:16", "rotary", None, "not written"),
        ("native:2", "rotary", None, "not written"),
        ("ntk:nan", "rotary", None, "not written"),
        ("ntk:4", "absolute", None, "needs rotary positions"),
        ("grouped:4", "rotary", None, "needs absolute positions"),
        ("pi:2", "rotary", 1025, "exceeds the 1024 positions"),
        ("native", "absolute", 513, "exceeds the 512 positions"),
        ("self_extend:4:512", "rotary", None, "keeps 512 neighbours"),
        ("self_extend:2.5:128", "rotary", None, "whole number"),
        ("longrope:/nowhere.json", "rotary", None, "cannot be read"),
        ("pi:99999", "absolute", None, "'pi:99999' would stretch 512 trained positions to 51,199,488"),
        ("yarn", "rotary", 10**6, "to 1,000,000"),
    ],
)
def test_specs_that_make_no_sense_are_refused(spec: str, kind: str, window: int | None, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        choose(spec, kind, 512, window)


@given(
    st.sampled_from(["pi", "ntk", "dynamic_ntk", "yarn", "by_parts", "grouped", "recurrent", "self_extend"]),
    st.integers(64, 4096),
    st.integers(1, 16),
)
def test_a_window_without_a_factor_is_just_reached(name: str, trained: int, times: int) -> None:
    kind = "absolute" if name in ("grouped", "recurrent") else "rotary"
    window = trained * times
    choice = choose(name, kind, trained, window)
    assert choice.window_tokens == window <= choice.method.reach(trained)
    if name != "self_extend":
        assert choice.method.reach(trained) <= window + 1
    elif choice.method.group > 1:
        smaller = SelfExtend(choice.method.group - 1, choice.method.neighbours)
        assert smaller.reach(trained) < window


@given(st.integers(16, 5000), st.integers(1, 100_000), st.sampled_from(["native", "pi:1.5"]))
def test_the_factor_of_a_remedy_is_enough(trained: int, more: int, before: str) -> None:
    window = min(trained * 3 // 2 + more, 512 * trained)
    with pytest.raises(ConfigurationError) as told:
        choose(before, "absolute", trained, window)
    factor = told.value.remedy.rstrip(".").rpartition(" ")[2]
    for name in ("pi", "grouped", "recurrent"):
        assert choose(f"{name}:{factor}", "absolute", trained, window).window_tokens == window
    assert choose("pi", "absolute", trained, window).window_tokens == window


def test_no_factor_is_advised_that_would_be_refused() -> None:
    with pytest.raises(ConfigurationError) as told:
        choose("native", "absolute", 512, 512 * 512 + 1)
    assert told.value.remedy == "Set it to at most that."
