"""One call on its way from texts to logits."""

from __future__ import annotations

import heapq
import math
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import numpy as np

from ...errors import NonFiniteScoreError
from ...ranking import TokenUsage
from ...settings import CallOptions
from ..scorers import Logits
from ..tokenization.pairs import Layout, TextPair, TokenSequence

# of a text that is cut, this many characters a token are taken for what is read
_CHARACTERS_PER_TOKEN = 4
# for the special tokens of a pair
_FRAME_CHARACTERS = 16
# jobs in a heap of deadlines from which on those that are answered are swept out
_SMALLEST_SWEEP = 64


def deadline_after(timeout_s: float | None) -> float:
    """The moment, on the monotonic clock, at which a timeout that starts now is over.

    :param timeout_s: None means never; 0 or less means that it is over already.
    """
    return math.inf if timeout_s is None else time.monotonic() + timeout_s


@dataclass(frozen=True, slots=True, eq=False)
class JobResult:
    """What a job's future answers.

    :param logits: `(pairs, outputs)` float32, finite, in the caller's order.
    :param usage: what the model read of the pairs.
    """

    logits: Logits
    usage: TokenUsage

    @property
    def deepest(self) -> list[float]:
        """Logits of the deepest layer: the model's own, one a pair."""
        logits: list[float] = self.logits[:, -1].tolist()
        return logits


def wait(future: Future[JobResult]) -> JobResult:
    """Wait for a job in this thread; Ctrl-C takes the job out of the queue."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@dataclass(frozen=True, slots=True, eq=False)
class PendingSequence:
    """One sequence of a job that waits for its logits.

    :param pair: index of its pair into the job's unique pairs.
    """

    job: Job
    pair: int
    tokens: TokenSequence

    def __len__(self) -> int:
        return len(self.tokens)


class Job:
    """The pairs of one call, and the future that its caller waits for.

    Equal pairs are scored once, so that they get equal scores. All methods but :meth:`fail` are
    called under the queue's lock.

    :param pairs: the caller's pairs.
    :param layout: how they become sequences.
    :param n_outputs: columns of the logits.
    :param options: of the call; its timeouts begin now.
    :param first_index: the caller's index of the first pair.
    :ivar size: number of unique pairs.
    :ivar characters: of these pairs, as far as they are read: about how much work they are.
    :ivar tokens: of the pairs that have their sequences.
    """

    def __init__(
        self,
        pairs: Sequence[TextPair],
        layout: Layout,
        n_outputs: int,
        options: CallOptions,
        first_index: int = 0,
    ) -> None:
        self.future: Future[JobResult] = Future()
        self.layout = layout
        self.deadline = deadline_after(options.timeout_s)
        self.queue_deadline = deadline_after(options.queue_timeout_s)
        self.max_wait_s = options.max_wait_s
        self.n_given = len(pairs)
        self.submitted_at = time.monotonic()
        self.admitted = False
        self.is_started = False
        self.ready: list[PendingSequence] = []
        self._first_index = first_index
        index_of: dict[TextPair, int] = {}
        # for each of the caller's pairs, its index among the unique ones
        self._unique = [index_of.setdefault(pair, len(index_of)) for pair in pairs]
        self._pairs: Sequence[TextPair] = list(index_of)
        self.size = len(self._pairs)
        self._logits = np.full((self.size, n_outputs), -np.inf, dtype=np.float32)
        self._taken = 0
        self._tokenized = 0
        self._unscored = 0
        self._pair_tokens = np.zeros(self.size, dtype=np.int32)
        self._truncated = np.zeros(self.size, dtype=np.bool_)
        self._is_query_cut = False
        is_cut = options.long_documents != "window"
        most_characters = _CHARACTERS_PER_TOKEN * layout.max_length if is_cut else sys.maxsize
        self.characters = sum(
            min(_FRAME_CHARACTERS + len(query) + len(document), most_characters)
            for query, document in self._pairs
        )
        self.tokens = 0

    @property
    def is_done(self) -> bool:
        """Whether the future has its answer (or was cancelled)."""
        return self.future.done()

    @property
    def is_taken(self) -> bool:
        """Whether every pair has been handed to the tokenizer."""
        return self._taken == self.size

    @property
    def is_tokenized(self) -> bool:
        """Whether every pair has its sequences."""
        return self._tokenized == self.size

    @property
    def is_complete(self) -> bool:
        """Whether every pair has its logits."""
        # a fast device may have scored all that there is while the rest is being tokenized
        return self.is_tokenized and not self._unscored

    def patience_s(self, now: float) -> float:
        """Seconds that the answer may take: ``max_wait_s``, or what is left until the deadline."""
        most = math.inf if self.max_wait_s is None else self.max_wait_s
        return min(most, self.deadline - now)

    def index_of(self, pair: int) -> int:
        """The caller's index of a unique pair, of its first occurrence."""
        return self._first_index + self._unique.index(pair)

    def next_pairs(self, max_pairs: int, max_characters: int) -> tuple[int, Sequence[TextPair]]:
        """The next pairs to tokenize, at least one, and the index of the first."""
        start = self._taken
        characters = 0
        while self._taken < min(start + max_pairs, self.size):
            characters += sum(map(len, self._pairs[self._taken]))
            if characters > max_characters and self._taken > start:
                break
            self._taken += 1
        return start, self._pairs[start : self._taken]

    def add_sequences(self, start: int, sequences: Sequence[Sequence[TokenSequence]]) -> None:
        """Take the sequences of the unique pairs from index ``start`` on."""
        pending = [
            PendingSequence(self, pair, tokens)
            for pair, windows in enumerate(sequences, start)
            for tokens in windows
        ]
        self._tokenized += len(sequences)
        self._unscored += len(pending)
        for sequence in pending:
            tokens = sequence.tokens
            self.tokens += len(tokens)
            self._pair_tokens[sequence.pair] += len(tokens)
            self._truncated[sequence.pair] |= tokens.document_truncated
            self._is_query_cut |= tokens.query_truncated
        # taken from the end, longest first: neighbors in a batch are alike
        self.ready += sorted(pending, key=len)

    def add_logits(self, pair: int, logits: Logits) -> None:
        """Take one sequence's logits `(outputs,)`; of a pair's windows the best counts.

        :raises NonFiniteScoreError: naming the pair, if a logit is NaN or infinite.
        """
        if not np.isfinite(logits).all():
            worst = logits[~np.isfinite(logits)][0]
            raise NonFiniteScoreError(self.index_of(pair), float(worst))
        np.maximum(self._logits[pair], logits, out=self._logits[pair])
        self._unscored -= 1

    def answer(self) -> None:
        """Answer with the logits, unless there is an answer already."""
        truncated = np.flatnonzero(self._truncated[self._unique]).tolist()
        usage = TokenUsage(
            total_tokens=self.tokens,
            pair_tokens=array("i", self._pair_tokens[self._unique].tobytes()),
            truncated=truncated,
            truncated_documents=len(truncated),
            query_truncated=self._is_query_cut,
        )
        with suppress(InvalidStateError):
            self.future.set_result(JobResult(self._logits[self._unique], usage))

    def fail(self, error: BaseException) -> bool:
        """Answer with an error, and return True, unless there is an answer already."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            return False
        return True

    def forget(self) -> None:
        """Let go of texts and token ids."""
        self._pairs = ()
        self.ready = []
        self._taken = self.size


class Deadlines:
    """A heap of moments on the monotonic clock, soonest first, and the jobs that they belong to.

    A job that is answered in time stays in the heap until it is swept: taking it out of the middle
    would cost more than the sweep.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._sweep_at = _SMALLEST_SWEEP
        # breaks ties, so that jobs are never compared
        self._number = count()

    def add(self, moment: float, job: Job) -> bool:
        """Remember a moment; infinity is never.

        :returns: whether it is the soonest of all.
        """
        if moment == math.inf:
            return False
        if len(self._heap) >= self._sweep_at:
            # the cost is spread over as many additions
            self._heap = [entry for entry in self._heap if not entry[2].is_done]
            heapq.heapify(self._heap)
            self._sweep_at = max(2 * len(self._heap), _SMALLEST_SWEEP)
        heapq.heappush(self._heap, (moment, next(self._number), job))
        return self._heap[0][2] is job

    def pop_due(self, now: float) -> list[Job]:
        """Take the jobs whose moments have come; a job with two moments may come twice."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the soonest moment, as a lock can wait for them; None if there is none."""
        return min(self._heap[0][0] - now, threading.TIMEOUT_MAX) if self._heap else None
