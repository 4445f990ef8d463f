"""Promise 15: no data is unpickled, and no code that came with data is run.

``tests/conftest.py`` listens from the first test to the last: Python tells auditors whenever an unpickler
looks up a class. Child processes of the standard library are started with pickles of their own, and are
named; whatever else asks for it from within Longleaf's packages is a broken promise.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
from audit_hook import found, heard, watched
from promises import report


def test_the_listener_hears_a_pickle() -> None:
    """Control: a promise that nobody could break unnoticed."""
    before = len(found())
    with watched("tests"):
        pickle.load(io.BytesIO(pickle.dumps(Path("x"))))
    heard = found()[before:]
    assert heard, "the control was not heard"
    del found()[before:]


@pytest.mark.model
def test_loading_the_default_models_unpickles_nothing() -> None:
    from embedders import late_chunking

    before = len(found())
    late_chunking.build(late_chunking.TINY).embed_queries(["weights are read from safetensors"])
    assert found()[before:] == []


def test_no_test_before_this_one_made_longleaf_unpickle() -> None:
    report(15, "look-ups of unpicklers in the suite so far, asked for by Longleaf", heard(), len(found()))
    assert found() == []
