"""The guard of cached contexts, and the file of their calibration."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.errors import ConfigurationError, ModelError, StorageError
from pipeline.lm import context_calibration
from pipeline.lm.context_guard import Guard
from pipeline.lm.context_options import ContextCalibration, ContextsConfig


class Answer:
    """An answer with given log-probabilities both ways."""

    def __init__(self, cached: float, sequential: float) -> None:
        self.scores = {False: cached, True: sequential}

    def __call__(self, *, sequential: bool) -> float:
        return self.scores[sequential]


@pytest.fixture
def make():
    made = []

    def guard(share=1.0, most_nats=0.5, **options):
        made.append(Guard(share, most_nats, **options))
        return made[-1]

    yield guard
    for each in made:
        each.close()


def test_answers_that_agree_keep_cached_contexts_on(make):
    guard = make()
    for _ in range(6):
        assert guard.offer(Answer(-0.5, -0.7))
        guard.drain()
    state = guard.state()
    assert (state.compared, state.drifted, state.failed) == (6, False, 0)
    assert state.difference_nats == pytest.approx(0.2)


def test_drift_switches_off_until_reset_and_only_after_enough_answers(make):
    guard = make()
    for n in range(8):
        assert not guard.drifted, n
        guard.offer(Answer(-0.5, -1.5))
        guard.drain()
    assert guard.drifted
    guard.reset()
    assert not guard.drifted
    assert guard.state().compared == 0


def test_old_comparisons_are_forgotten(make):
    guard = make(most_nats=10.0)
    for cached in (*[0.0] * 50, *[-1.0] * 50):
        guard.offer(Answer(cached, -1.0))
        guard.drain()
    assert guard.state().difference_nats == 0.0


def test_only_a_share_is_compared(make):
    chances = iter([0.1, 0.3, 0.05, 0.9])
    guard = make(share=0.2, chance=lambda: next(chances))
    assert [guard.offer(Answer(0, 0)) for _ in range(4)] == [True, False, True, False]
    assert not make(share=0.0, chance=lambda: 0.0).offer(Answer(0, 0))


def test_comparing_waits_while_answers_are_written_and_offering_never_does(make):
    busy = threading.Event()
    busy.set()
    guard = make(is_busy=busy.is_set)
    began = time.monotonic()
    taken = [guard.offer(Answer(0, 0)) for _ in range(40)]
    assert time.monotonic() - began < 1
    assert 8 <= sum(taken) <= 10
    assert guard.state().compared == 0
    busy.clear()
    guard.drain()
    assert guard.state().compared == sum(taken)


def test_a_failing_comparison_is_counted_and_the_next_goes_on(make):
    guard = make()

    def broken(*, sequential):
        raise ModelError("no")

    guard.offer(broken)
    guard.offer(Answer(0, -0.1))
    guard.drain()
    state = guard.state()
    assert (state.failed, state.compared) == (1, 1)


def test_closing_gives_up_what_waits():
    busy = threading.Event()
    busy.set()
    guard = Guard(1.0, 0.5, busy.is_set)
    for _ in range(5):
        guard.offer(Answer(0, 0))
    guard.close()
    assert guard.state().compared == 0
    assert not guard.offer(Answer(0, 0))


FOUND = ContextCalibration(
    "tiny", "ab" * 32, 0.6, 1.0, 3, ((1, 2), (3, 4)), 0.5, (0.02, -0.01, 0.05), 40, "questions of a test"
)


def test_a_calibration_is_stored_found_and_bound_to_its_weights(tmp_path):
    path = context_calibration.write(FOUND, tmp_path)
    assert path.name == "abababababababab.contexts.json"
    assert context_calibration.find("tiny", "ab" * 32, tmp_path) == FOUND
    assert context_calibration.find("tiny", "cd" * 32, tmp_path) is None
    with pytest.raises(ConfigurationError, match="other"):
        context_calibration.find("other", "ab" * 8 + "cd" * 24, tmp_path)
    assert FOUND.most_loss_nats == 0.05
    assert ContextCalibration("m", "r").most_loss_nats == float("inf")


def test_the_calibration_that_comes_with_the_default_model_lets_auto_attend():
    digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    found = context_calibration.find("SmolLM2-135M-Instruct", digest)
    assert found is not None and found.heads
    assert found.most_loss_nats <= ContextsConfig().tolerance_nats


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"temperature": 0.6', '"temperature": 0'),
        ('"scale": 1.0', '"scale": "x"'),
        ('"weight": 0.5', '"weight": 7'),
        ('"attended": 3', '"surprise": 3'),
        ("{", "["),
    ],
)
def test_a_damaged_calibration_is_refused_with_its_name(tmp_path, old, new):
    path = context_calibration.write(FOUND, tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=r"abababababababab.*calibrate lm"):
        context_calibration.find("tiny", "ab" * 32, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        context_calibration.write(FOUND, tmp_path / "file")
