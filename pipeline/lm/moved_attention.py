"""An answer's wish to have its attention moved between passages -> the plan that does it.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.lm.attention import Plan, require
from pipeline.lm.attention_bias import biasing, upper_half
from pipeline.lm.request import Moved, Weighed
from pipeline.lm.reweigh import reweighing
from pipeline.lm.spans import address
from pipeline.seams import Message

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel


def moving(model: LocalModel, messages: Sequence[Message], moved: Moved) -> Plan:
    """The plan for an answer to these messages: its tokens, and the prompt's last, which predicts the first
    of them, attend otherwise in the second half of the layers. What stands before is read as ever.

    Raises ModelError for a family without support, InvalidRequestError for a passage without tokens.
    """
    require(model.network, "Moving attention")
    found = address(model.chat, messages, moved.places)
    layers = upper_half(int(model.network.config.get_text_config(decoder=True).num_hidden_layers))
    begins = len(found.ids) - 1
    if isinstance(moved, Weighed):
        return reweighing([found.spans], [np.asarray(moved.shares, np.float32)], [begins], layers)
    return biasing(found.spans, moved.biases, begins, layers)
