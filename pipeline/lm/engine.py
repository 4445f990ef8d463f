"""One network, many requests: whoever waits longest goes first, and whoever waits goes along.

Each request runs in its caller's thread and asks for one step at a time. The request at the head of the
line leads: it takes along other requests' steps that fit into the same forward pass (their next tokens,
and one part of a prompt), runs it and hands the lead to the next in line. So nobody waits longer than one
pass, and two users who stream at once cost little more than one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.lm.loading import memory_errors

if TYPE_CHECKING:
    import torch

    from pipeline.lm.sequence import Sequence

MOST_ROWS = 16
"""Most requests in one forward pass."""
FEW_TOKENS = 32
"""A step of at most this many tokens is taken along by others; longer ones are parts of prompts."""
_PATIENCE = 0.1
_MOST_PATIENCE_SECONDS = 0.003


@dataclass(slots=True, eq=False)
class Step:
    """Tokens that one request wants read, and what came of it.

    ``logits`` is (keep, V). ``seconds`` is how long the forward pass took if it was for this step alone,
    else None.
    """

    sequence: Sequence
    ids: Several[int]
    keep: int
    logits: torch.Tensor = field(init=False)
    seconds: float | None = None
    error: Exception | None = None
    finished: bool = False
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def alone(self) -> bool:
        """Whether nothing else may be read in the same pass."""
        return self.sequence.alone


class Engine:
    """Runs the steps of all requests to one network. Safe for any number of threads."""

    def __init__(self, network: Any, *, packs: bool = False) -> None:  # noqa: ANN401 - of transformers
        """``packs``: whether the network's attention understands several requests in one pass."""
        self.network = network
        self._packs = packs
        self._guard = threading.Condition()
        self._line: deque[Step] = deque()
        self._led = False
        self._writing = 0
        self._pass_seconds = 0.0
        self.passes = 0
        """Forward passes so far."""

    @property
    def writing(self) -> int:
        """Requests that are writing an answer at this moment."""
        return self._writing

    @property
    def sharing(self) -> int:
        """Requests that one forward pass serves now, the caller's included; 1 where passes are not shared."""
        return max(1, min(self._writing, MOST_ROWS)) if self._packs else 1

    @property
    def busy(self) -> bool:
        """Whether an answer is being written or anything is being read."""
        return self._writing > 0 or self._led

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Inside, the caller reads one token after another; a leader may wait a moment for its next."""
        with self._guard:
            self._writing += 1
        try:
            yield
        finally:
            with self._guard:
                self._writing -= 1

    def read(self, sequence: Sequence, ids: Several[int], keep: int = 1) -> Step:
        """Read ``ids`` after what the sequence has read. Raises ModelError when memory runs out."""
        mine = Step(sequence, ids, keep)
        with self._guard:
            self._line.append(mine)
            self._guard.notify()
            leads = not self._led
            self._led = True
        if not leads:
            self._wait(mine)
        if not mine.finished:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine

    def _wait(self, mine: Step) -> None:
        """Until the step has been taken along, or it is its turn to lead."""
        try:
            mine.woken.wait()
        except BaseException:  # KeyboardInterrupt: leave the line, or pass on the lead that just came
            with self._guard:
                if mine in self._line:
                    self._line.remove(mine)
                    if not mine.woken.is_set():
                        raise
            mine.woken.wait()
            if not mine.finished:
                self._hand_over()
            raise

    def _lead(self, mine: Step) -> None:
        try:
            self._run(self._gather(mine))
        finally:
            mine.finished = True
            self._hand_over()

    def _hand_over(self) -> None:
        with self._guard:
            if self._line:
                self._line[0].woken.set()
            else:
                self._led = False

    def _gather(self, mine: Step) -> list[Step]:
        """The leader's step and those that go along, in order of arrival; they leave the line."""
        with self._guard:
            if not mine.alone and self._packs:
                self._await_others()
            batch = [mine]
            self._line.remove(mine)
            if mine.alone or not self._packs:
                return batch
            room = 0 if len(mine.ids) > FEW_TOKENS else 1
            for step in list(self._line):
                long = len(step.ids) > FEW_TOKENS
                if step.alone or len(batch) == MOST_ROWS or (long and not room):
                    continue
                room -= long
                batch.append(step)
                self._line.remove(step)
            return batch

    def _await_others(self) -> None:
        """Give requests that are between two tokens a moment to come along; a small part of a pass."""
        until = time.monotonic() + min(_MOST_PATIENCE_SECONDS, _PATIENCE * self._pass_seconds)
        while len(self._line) < min(self._writing, MOST_ROWS) and (left := until - time.monotonic()) > 0:
            self._guard.wait(left)

    def _run(self, batch: list[Step]) -> None:
        """Compute the steps together or, should that fail, each by itself; then wake their threads."""
        began = time.perf_counter()
        try:
            if len(batch) > 1:
                _packed_pass(self.network, batch)
            else:
                _single_pass(self.network, batch[0])
            self._synchronise()
            seconds = time.perf_counter() - began
            if len(batch) == 1:
                batch[0].seconds = seconds
            if max(len(step.ids) for step in batch) <= FEW_TOKENS:
                self._pass_seconds = seconds
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for the step
            for step in batch:
                _forget(step)
            if len(batch) == 1:
                batch[0].error = error
            else:
                for step in batch:
                    self._run_alone(step)
        self.passes += 1
        for step in batch[1:]:
            step.finished = True
            step.woken.set()

    def _run_alone(self, step: Step) -> None:
        try:
            _single_pass(self.network, step)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for the step
            _forget(step)
            step.error = error

    def _synchronise(self) -> None:
        if self.network.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.network.device)
        elif self.network.device.type == "mps":
            import torch

            torch.mps.synchronize()


def _single_pass(network: Any, step: Step) -> None:  # noqa: ANN401 - of transformers
    import torch

    from pipeline.lm.sequence import positions

    sequence = step.sequence
    options: dict[str, Any] = {}
    if sequence.plan is not None or sequence.shift:
        options["position_ids"] = positions(sequence, len(step.ids))[None].to(network.device)
    with torch.inference_mode(), memory_errors(f"reading {len(step.ids)} more tokens"), _following(sequence):
        result = network(
            input_ids=torch.tensor([list(step.ids)], device=network.device),
            past_key_values=sequence.cache,
            use_cache=True,
            logits_to_keep=step.keep,
            **options,
        )
    step.logits = result.logits[0]


def _packed_pass(network: Any, batch: list[Step]) -> None:  # noqa: ANN401 - of transformers
    import torch

    from pipeline.lm.packing import PackedCache
    from pipeline.lm.sequence import positions

    lengths = [len(step.ids) for step in batch]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    kept = [at for step, end in zip(batch, ends, strict=True) for at in range(end - step.keep, end)]
    with torch.inference_mode(), memory_errors(f"reading {sum(lengths)} more tokens"):
        result = network(
            input_ids=torch.tensor([[i for step in batch for i in step.ids]], device=network.device),
            position_ids=torch.cat([positions(step.sequence, len(step.ids)) for step in batch])[None].to(
                network.device
            ),
            # Of four dimensions, so that it is passed on as it is; attention of a packed batch ignores it.
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=network.device),
            past_key_values=PackedCache(
                [step.sequence.cache for step in batch], lengths, [step.sequence.following for step in batch]
            ),
            use_cache=True,
            logits_to_keep=torch.tensor(kept, device=network.device),
        )
    parts = result.logits[0].split([step.keep for step in batch])
    for step, logits in zip(batch, parts, strict=True):
        step.logits = logits


def _following(sequence: Sequence) -> contextlib.AbstractContextManager[None]:
    if sequence.following is None:
        return contextlib.nullcontext()
    from pipeline.lm.attention import following

    return following(*sequence.following)


def _forget(step: Step) -> None:
    """Undo what a failed pass may have appended to some layers."""
    from pipeline.lm import kv_cache

    if kv_cache.can_roll_back(step.sequence.cache):
        kv_cache.roll_back(step.sequence.cache, step.sequence.length_tokens)
