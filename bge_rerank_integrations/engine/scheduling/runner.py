"""Batches on a device, and what becomes of those that fail.

A batch that fails is halved until the pair at fault stands alone, so that only its call fails; a
batch that does not fit the device's memory is halved and the next ones are made smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bge_rerank_integrations.engine.scheduling.batching import plan_batches
from bge_rerank_integrations.engine.scheduling.failures import (
    caused_by,
    is_fatal,
    is_out_of_memory,
    without_traceback,
)
from bge_rerank_integrations.engine.scheduling.jobs import Piece
from bge_rerank_integrations.engine.scheduling.queue import JobQueue
from bge_rerank_integrations.engine.scheduling.stats import Counters
from bge_rerank_integrations.engine.scorers import Logits, Scorer
from bge_rerank_integrations.errors import ScoringError

logger = logging.getLogger(__name__)

_SMALLEST_BATCH_TOKENS = 256
# a padded scorer sorts over several batches, to put like lengths together
_PADDED_BATCHES_AHEAD = 4
# by how much the budget grows with every batch, after memory had run out
_REGROWTH = 1.01


class _Started(NamedTuple):
    """A batch that a scorer was given."""

    pieces: Sequence[Piece]
    logits: npt.ArrayLike


class BatchRunner:
    """Takes sequences from a queue, scores them and answers their calls.

    :param queue: where sequences are taken from.
    :param counters: where work is counted.
    :param max_batch_tokens: tokens in one forward pass.
    :param layers: columns of a scorer's logits.
    """

    def __init__(
        self, queue: JobQueue, counters: Counters, *, max_batch_tokens: int, layers: int
    ) -> None:
        self._queue = queue
        self._layers = layers
        self._counters = counters
        self._max_batch_tokens = max_batch_tokens
        self._batch_tokens = float(max_batch_tokens)

    def run(self, scorer: Scorer) -> None:
        """Score until the queue is stopped; one thread a scorer.

        Where the device computes on its own, it is given the next batch before the last one is
        waited for.
        """
        ahead = _PADDED_BATCHES_AHEAD if scorer.padded else 1
        last: _Started | None = None
        while True:
            tokens = int(self._batch_tokens)
            pieces = self._queue.next_to_score(tokens * ahead, wait=last is None)
            if pieces is None:
                return
            lengths = [len(piece) for piece in pieces]
            batches = plan_batches(lengths, tokens, padded=scorer.padded)
            # none: there is nothing to do meanwhile, and the last one is waited for
            for batch in batches or [[]]:
                started = self._start(scorer, [pieces[index] for index in batch])
                if last is not None:
                    self._finish(scorer, last)
                last = started
                if last is not None and isinstance(last.logits, np.ndarray):
                    self._finish(scorer, last)
                    last = None

    def _start(self, scorer: Scorer, pieces: Sequence[Piece]) -> _Started | None:
        """Give a batch to the device; None if nobody waits for it, or it has failed and is over."""
        pieces = self._queue.without_answered(pieces)
        if not pieces:
            return None
        try:
            return _Started(pieces, scorer.score([piece.pair for piece in pieces]))
        except BaseException as error:
            failure = _failure(error, pieces)
        self._recover(scorer, pieces, failure)
        return None

    def _finish(self, scorer: Scorer, started: _Started) -> None:
        """Wait for a batch and answer its calls."""
        try:
            logits = self._logits(started)
        except BaseException as error:
            failure = _failure(error, started.pieces)
        else:
            self._succeed(started.pieces, logits)
            return
        self._recover(scorer, started.pieces, failure)

    def _recover(self, scorer: Scorer, pieces: Sequence[Piece], failure: BaseException) -> None:
        """Score the halves of a batch that failed, until the pair at fault stands alone."""
        if is_out_of_memory(failure):
            self._shrink()
        if len(pieces) == 1:
            self._fail(pieces[0], failure)
            return
        self._counters.add(retries=1)
        middle = len(pieces) // 2
        for half in (pieces[:middle], pieces[middle:]):
            if (started := self._start(scorer, half)) is not None:
                self._finish(scorer, started)

    def _logits(self, started: _Started) -> Logits:
        """Logits `(n, layers)` of the ``n`` pieces.

        :raises RuntimeError: if the scorer answers with anything else.
        """
        logits = np.asarray(started.logits)
        expected = (len(started.pieces), self._layers)
        if logits.shape != expected:
            raise RuntimeError(f"logits {expected} were expected, the model gave {logits.shape}")
        return logits

    def _succeed(self, pieces: Sequence[Piece], logits: Logits) -> None:
        self._counters.add(batches=1, pairs=len(pieces), tokens=sum(map(len, pieces)))
        # back to the full budget by and by: memory may have been another process's for a moment
        self._batch_tokens = min(self._batch_tokens * _REGROWTH, self._max_batch_tokens)
        for error in self._queue.add_logits(pieces, logits):
            self._tell(error)

    def _fail(self, piece: Piece, cause: BaseException) -> None:
        index = piece.job.indices[piece.slot]
        error = ScoringError(f"scoring document {index} failed: {cause}", index)
        if self._queue.fail(piece, caused_by(error, cause)):
            self._tell(error)

    def _tell(self, error: ScoringError) -> None:
        self._counters.add(failures=1)
        logger.error("a call failed: %s", error)

    def _shrink(self) -> None:
        """Halve the budget of the batches to come, down to a least one."""
        least = min(_SMALLEST_BATCH_TOKENS, self._max_batch_tokens)
        if self._batch_tokens > least:
            self._batch_tokens = max(self._batch_tokens / 2, least)
            logger.warning("out of memory: batches shrink to %d tokens", self._batch_tokens)


def _failure(error: BaseException, pieces: Sequence[Piece]) -> BaseException:
    """The error of a batch that may be tried again in halves.

    :raises BaseException: the error itself, if nothing more can be scored after it.
    """
    if is_fatal(error):
        raise error
    logger.debug("a batch of %d sequences failed", len(pieces), exc_info=error)
    return without_traceback(error)
