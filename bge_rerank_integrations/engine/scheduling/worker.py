"""Batches on one device, and what becomes of those that fail.

A batch that fails is halved until the sequence at fault stands alone, so that only its call fails;
a batch that does not fit the device's memory is halved and the next ones are made smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import RerankError, ScoringError
from ..scorers import Logits, Scorer
from ..threads import gate
from .job import PendingSequence
from .queue import JobQueue
from .stats import Counters

logger = logging.getLogger(__name__)

Batch = Sequence[PendingSequence]

_SMALLEST_BATCH_TOKENS = 256
# a padded scorer sorts over several batches, to put like lengths together
_PADDED_BATCHES_AHEAD = 4
# by how much the budget grows with every batch, after memory had run out
_REGROWTH = 1.01

# The device's context is lost: nothing runs on it again in this process. These are the errors of
# which CUDA's documentation says that the process must be terminated, in the words of
# cudaGetErrorString.
_FATAL = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "global/shared address space",
    "unspecified launch failure",
    "launch timed out",
    "ecc error",
    "nvlink error",
    "peer gpu memory over nvlink or a hardware error",
    "tensor memory not completely freed",
    "external entity outside of cuda",
    "mps client has been terminated",
    "context is destroyed",
    # not in that list: what a GPU that has fallen off the bus answers to everything
    "cuda error: unknown error",
)
# a full GPU may also leave cuBLAS without memory for its workspace
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
)


def plan_batches(
    lengths: Sequence[int], max_batch_tokens: int, *, padded: bool = False
) -> list[list[int]]:
    """Split sequences into batches of similar length within a token budget.

    :param lengths: tokens of each sequence.
    :param max_batch_tokens: tokens in one batch; a longer single sequence is a batch of its own.
    :param padded: count what padding to the longest of the batch adds.
    :returns: indices into ``lengths``, longest first, every one exactly once.
    """
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        # longest first: the first of a batch is what all others are padded to
        cost = lengths[batches[-1][0]] if padded and batches else lengths[index]
        if not batches or used + cost > max_batch_tokens:
            batches.append([])
            used, cost = 0, lengths[index]
        batches[-1].append(index)
        used += cost
    return batches


class _Started(NamedTuple):
    """A batch that the scorer was given, and its logits, which may still be computed."""

    batch: Batch
    logits: npt.ArrayLike


class Worker:
    """Takes sequences from the queue, scores them on one device and answers their calls.

    :param scorer: the model on its device; called from this worker's thread only.
    :param queue: where sequences are taken from.
    :param counters: where work is counted.
    :param max_batch_tokens: tokens in one forward pass.
    :param n_outputs: columns of the scorer's logits.
    :ivar held: sequences that were taken and may not be answered yet.
    """

    def __init__(
        self,
        scorer: Scorer,
        queue: JobQueue,
        counters: Counters,
        *,
        max_batch_tokens: int,
        n_outputs: int,
    ) -> None:
        self.held: Batch = ()
        self._scorer = scorer
        self._queue = queue
        self._counters = counters
        self._n_outputs = n_outputs
        self._max_batch_tokens = max_batch_tokens
        self._batch_tokens = float(max_batch_tokens)

    def run(self) -> None:
        """Score until the queue is stopped.

        Where the device computes on its own, it is given the next batch before the last one is
        waited for.
        """
        ahead = _PADDED_BATCHES_AHEAD if self._scorer.padded else 1
        last: _Started | None = None
        while True:
            budget = int(self._batch_tokens)
            taken = self._queue.next_to_score(budget * ahead, wait=last is None)
            if taken is None:
                return
            self.held = [*(last.batch if last is not None else ()), *taken]
            with gate:
                last = self._score(taken, budget, last)

    def _score(self, taken: Batch, budget: int, last: _Started | None) -> _Started | None:
        """Score sequences that were taken, and finish the batch before them.

        :returns: the last batch, if it is still being computed.
        """
        if not taken and last is not None:
            # nothing to start meanwhile
            self._finish(last)
            return None
        lengths = [len(sequence) for sequence in taken]
        for indices in plan_batches(lengths, budget, padded=self._scorer.padded):
            started = self._start([taken[index] for index in indices])
            if last is not None:
                self._finish(last)
            last = started
            if last is not None and isinstance(last.logits, np.ndarray):
                self._finish(last)
                last = None
        return last

    def _start(self, batch: Batch) -> _Started | None:
        """Give a batch to the device; None if nobody waits for it, or if it failed."""
        batch = self._queue.without_answered(batch)
        if not batch:
            return None
        try:
            return _Started(batch, self._scorer.score([sequence.tokens for sequence in batch]))
        except BaseException as error:
            failure = _failure(error, batch)
        self._recover(batch, failure)
        return None

    def _finish(self, started: _Started) -> None:
        """Wait for a batch and answer its calls."""
        try:
            logits = self._logits(started)
        except BaseException as error:
            failure = _failure(error, started.batch)
        else:
            self._succeed(started.batch, logits)
            return
        self._recover(started.batch, failure)

    def _recover(self, batch: Batch, failure: BaseException) -> None:
        """Score the halves of a batch that failed, until the sequence at fault stands alone."""
        if is_out_of_memory(failure):
            self._shrink()
        if len(batch) == 1:
            self._fail(batch[0], failure)
            return
        self._counters.add(retries=1)
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            if (started := self._start(half)) is not None:
                self._finish(started)

    def _logits(self, started: _Started) -> Logits:
        """Logits `(n, outputs)` of the ``n`` sequences.

        :raises RuntimeError: if the scorer answers with anything else.
        """
        logits = np.asarray(started.logits)
        expected = (len(started.batch), self._n_outputs)
        if logits.shape != expected:
            raise RuntimeError(f"logits {expected} were expected, the model gave {logits.shape}")
        return logits

    def _succeed(self, batch: Batch, logits: Logits) -> None:
        # the budget grows back slowly: another process may have held the memory for a moment
        self._batch_tokens = min(self._batch_tokens * _REGROWTH, self._max_batch_tokens)
        self._counters.add_batch(len(batch), sum(map(len, batch)))
        for error in self._queue.add_logits(batch, logits):
            self._report(error)

    def _fail(self, sequence: PendingSequence, cause: BaseException) -> None:
        index = sequence.job.index_of(sequence.pair)
        error = ScoringError(f"scoring document {index} failed: {cause}", index)
        if self._queue.fail([sequence], caused_by(error, cause)):
            self._report(error)

    def _report(self, error: ScoringError) -> None:
        self._counters.add(failures=1)
        logger.error("a call failed: %s", error)

    def _shrink(self) -> None:
        """Halve the budget of the batches to come, down to a least one."""
        least = min(_SMALLEST_BATCH_TOKENS, self._max_batch_tokens)
        if self._batch_tokens > least:
            self._batch_tokens = max(self._batch_tokens / 2, least)
            logger.warning("out of memory: batches shrink to %d tokens", self._batch_tokens)


def _failure(error: BaseException, batch: Batch) -> BaseException:
    """The error of a batch that may be tried again in halves.

    :raises BaseException: the error itself, if nothing more can be scored after it.
    """
    if is_fatal(error):
        raise error
    logger.debug("a batch of %d sequences failed", len(batch), exc_info=error)
    return without_traceback(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed.

    torch reports a full GPU with ``torch.OutOfMemoryError`` or with cuBLAS's status, and a full CPU
    with a plain ``RuntimeError`` of its allocator; all say so in their message.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether every further forward pass would fail too: the device or the thread is lost."""
    return is_exit(error) or (isinstance(error, RuntimeError) and _mentions(error, _FATAL))


def is_exit(error: BaseException) -> bool:
    """Whether an exception wants to end the thread rather than to report a failure.

    A panic in the Rust of a tokenizer is no ``Exception``, but still one document's failure.
    """
    return not isinstance(error, Exception) and type(error).__name__ != "PanicException"


def without_traceback(error: BaseException) -> BaseException:
    """The same error, and those that it came from, without their tracebacks.

    Their frames would keep a batch's tensors alive, or a failed engine's weights.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(phrase in message for phrase in phrases)


def caused_by(error: RerankError, cause: BaseException) -> RerankError:
    """The error, with what caused it chained to it."""
    error.__cause__ = cause
    return error
