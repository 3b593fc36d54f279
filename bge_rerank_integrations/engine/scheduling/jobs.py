"""One call on its way from texts to logits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair
from bge_rerank_integrations.errors import ConfigurationError, NonFiniteScoreError

TextPair = tuple[str, str]


def deadline_after(timeout_s: float | None) -> float:
    """The moment, on the monotonic clock, at which a timeout that starts now is over.

    :param timeout_s: None means never; 0 or less means that it is over already.
    :raises ConfigurationError: if it is not a number.
    """
    if timeout_s is None:
        return math.inf
    is_number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not is_number or math.isnan(timeout_s):
        raise ConfigurationError(
            f"timeout_s must be None or a number of seconds, got {timeout_s!r}"
        )
    return time.monotonic() + timeout_s


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a job's future answers.

    :param logits: `(pairs, layers)` float32, finite.
    :param tokens: tokens that the model read.
    """

    logits: Logits
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One sequence of a job: a pair, or a window of a long one."""

    job: Job
    slot: int
    pair: TokenizedPair

    def __len__(self) -> int:
        return len(self.pair)


class Job:
    """The pairs of one call, and the future that its caller waits for.

    All methods but :meth:`fail` are called under the queue's lock.

    :param pairs: different pairs of texts.
    :param indices: where each pair stands in the caller's list, for errors.
    :param timeout_s: seconds from now after which the call has failed; None waits for ever.
    :param queue_timeout_s: seconds from now to wait for a place in a full queue; None waits for
        ever.
    :raises ConfigurationError: if ``timeout_s`` is not a number.
    """

    def __init__(
        self,
        pairs: Sequence[TextPair],
        indices: Sequence[int],
        timeout_s: float | None,
        queue_timeout_s: float | None,
    ) -> None:
        self.future: Future[Scored] = Future()
        self.size = len(pairs)
        self.indices = indices
        self.deadline = deadline_after(timeout_s)
        self.queue_deadline = deadline_after(queue_timeout_s)
        self.admitted = False
        self.ready: list[Piece] = []
        self._pairs = pairs
        self._taken = 0
        self._tokenized = 0
        self._unscored = 0
        self._tokens = 0
        self._logits: Logits | None = None

    @property
    def done(self) -> bool:
        """Whether the future has its answer (or was cancelled)."""
        return self.future.done()

    @property
    def is_taken(self) -> bool:
        """Whether no pair is left that the tokenizer has not begun with."""
        return self._taken == self.size

    def next_pairs(self, max_pairs: int, max_characters: int) -> tuple[int, Sequence[TextPair]]:
        """The next pairs to tokenize, at least one, and the slot of the first."""
        start = self._taken
        characters = 0
        while self._taken < min(start + max_pairs, self.size):
            characters += sum(map(len, self._pairs[self._taken]))
            if characters > max_characters and self._taken > start:
                break
            self._taken += 1
        return start, self._pairs[start : self._taken]

    def add_sequences(self, start: int, sequences: Sequence[Sequence[TokenizedPair]]) -> None:
        """Take the token ids of the pairs from slot ``start`` on."""
        pieces = [
            Piece(self, start + offset, sequence)
            for offset, windows in enumerate(sequences)
            for sequence in windows
        ]
        self._tokenized += len(sequences)
        self._unscored += len(pieces)
        self._tokens += sum(map(len, pieces))
        # taken from the end, longest first: neighbours in a batch are alike
        self.ready += sorted(pieces, key=len)

    def add_logits(self, slot: int, logits: Logits) -> None:
        """Take one sequence's logits `(layers,)`; of a pair's windows the best counts.

        :raises NonFiniteScoreError: naming the pair, if a logit is NaN or infinite.
        """
        if not np.isfinite(logits).all():
            worst = logits[~np.isfinite(logits)][0]
            raise NonFiniteScoreError(self.indices[slot], float(worst))
        if self._logits is None:
            self._logits = np.full((self.size, len(logits)), -np.inf, dtype=np.float32)
        np.maximum(self._logits[slot], logits, out=self._logits[slot])
        self._unscored -= 1
        # a fast device may have scored all that there is while the rest is being tokenized
        if self._tokenized == self.size and not self._unscored:
            self._answer(Scored(self._logits, self._tokens))

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

    def _answer(self, scored: Scored) -> None:
        with suppress(InvalidStateError):
            self.future.set_result(scored)
