"""More tokens than a model was trained for: one method, named in the settings, as a frozen value.

================================= ======== ============================================================
spec                              of       method
================================= ======== ============================================================
``native``                        both     the trained positions and no more; longer texts go in windows
``pcw``                           both     the same, said on purpose: parallel windows
``pi:4``                          both     linear interpolation of positions by 4
``grouped:4``, ``recurrent:4``    absolute every position used 4 times, side by side or over again
``ntk:4``, ``dynamic_ntk:4``      rotary   a larger base, fixed or growing with the document
``by_parts:4``, ``yarn:4``        rotary   slow frequencies interpolated, fast ones kept; with temperature
``longrope:FILE``                 rotary   factors found by search, one a frequency, from a JSON file
``self_extend:8:128``             rotary   distances beyond 128 tokens counted in steps of 8
``string:2731:128``               rotary   distances from 2731 tokens on counted from 128 again
``ms_poe:1.2:1.8``                rotary   positions on a scale of each head's own; for language models
================================= ======== ============================================================

:func:`choose` reads a spec and says what window it gives, :func:`pipeline.positions.network.extend`
applies it to a network of transformers. ``str(method)`` is part of an index's fingerprint.
"""

from pipeline.positions.absolute import Grouped, ParallelWindows, Recurrent, interpolated
from pipeline.positions.base_bound import least_base, longest_reach, shortfall
from pipeline.positions.choice import Choice, Method, choose
from pipeline.positions.ms_poe import MsPoe
from pipeline.positions.rotary import (
    DynamicNtk,
    LongRope,
    Native,
    Ntk,
    PositionInterpolation,
    Rope,
    Rotation,
    SelfExtend,
    String,
    Yarn,
)

__all__ = [
    "Choice",
    "DynamicNtk",
    "Grouped",
    "LongRope",
    "Method",
    "MsPoe",
    "Native",
    "Ntk",
    "ParallelWindows",
    "PositionInterpolation",
    "Recurrent",
    "Rope",
    "Rotation",
    "SelfExtend",
    "String",
    "Yarn",
    "choose",
    "interpolated",
    "least_base",
    "longest_reach",
    "shortfall",
]
