"""Any number of pairs, read as they are needed and scored as a few jobs at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from math import inf
from typing import Any

from tqdm.auto import tqdm
from typing_extensions import Self

from ..inputs import check_pairs
from ..ranking import TokenUsage
from ..settings import CallOptions
from .scheduling.job import Job, JobResult, deadline_after
from .tokenization.pairs import TextPair

_CHUNK_PAIRS = 2_048
_CHUNKS_AHEAD = 2
# a progress bar moves so many times at least, unless a step would be too small to fill batches
_STEPS = 20
_SMALLEST_STEP = 16

Submit = Callable[[list[TextPair], CallOptions, int], Job]


class PairStream:
    """Turns pairs into jobs, of which a few wait at one time; leaving it cancels those.

    ::

        with PairStream(...) as stream:
            while (future := stream.next_future()) is not None:
                stream.add(future.result())

    :param pairs: any iterable; read only as far as it is scored.
    :param submit: pairs, options and the index of the first pair → a job.
    :param options: of the whole call.
    :param max_queued_pairs: pairs that the queue takes.
    :param show_progress: show a progress bar on standard error.
    """

    def __init__(
        self,
        pairs: Iterable[Sequence[str]],
        submit: Submit,
        options: CallOptions,
        max_queued_pairs: int,
        show_progress: bool,
    ) -> None:
        self.logits: list[float] = []
        self._usages: list[TokenUsage] = []
        self._source = iter(pairs)
        self._submit = submit
        self._options = options
        self._deadline = deadline_after(options.timeout_s)
        total = len(pairs) if isinstance(pairs, Sized) else None
        chunk_pairs = min(_CHUNK_PAIRS, max_queued_pairs // _CHUNKS_AHEAD)
        if show_progress and total is not None:
            chunk_pairs = min(chunk_pairs, max(total // _STEPS, _SMALLEST_STEP))
        self._chunk_pairs = max(chunk_pairs, 1)
        self._waiting: deque[Job] = deque()
        self._read = 0
        self._bar: Any = tqdm(total=total, unit="pair", disable=not show_progress)

    def next_future(self) -> Future[JobResult] | None:
        """What to wait for next; None when all pairs are scored.

        :raises InputError: naming a pair that cannot be scored.
        """
        while len(self._waiting) < _CHUNKS_AHEAD:
            chunk = check_pairs(islice(self._source, self._chunk_pairs), self._read)
            if not chunk:
                break
            self._waiting.append(self._submit(chunk, self._chunk_options(), self._read))
            self._read += len(chunk)
        return self._waiting[0].future if self._waiting else None

    def add(self, result: JobResult) -> None:
        """Take the answer to the future that was waited for."""
        self._waiting.popleft()
        self.logits += result.deepest
        self._usages.append(result.usage)
        self._bar.update(len(result.logits))

    @property
    def usage(self) -> TokenUsage:
        """What the model has read so far."""
        return TokenUsage.joined(self._usages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for job in self._waiting:
            job.future.cancel()
        self._bar.close()

    def _chunk_options(self) -> CallOptions:
        return replace(
            self._options,
            timeout_s=self._deadline - time.monotonic(),
            # only the start may be refused: what has begun waits for its place
            queue_timeout_s=inf if self._read else self._options.queue_timeout_s,
            max_wait_s=None if self._read else self._options.max_wait_s,
        )
