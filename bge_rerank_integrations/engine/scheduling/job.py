"""One call on its way from texts to logits."""

from __future__ import annotations

import math
import sys
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bge_rerank_integrations.engine.scheduling.score_cache import (
    CachedScore,
    Key,
    ScoreCache,
    keys_of,
)
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.pairs import AnyLayout
from bge_rerank_integrations.engine.tokenization.sequence import TokenSequence
from bge_rerank_integrations.errors import NonFiniteScoreError
from bge_rerank_integrations.ranking import TokenUsage
from bge_rerank_integrations.settings import CallOptions

TextPair = tuple[str, str]

# of a text that is cut, this many characters a token are taken for what is read
_CHARACTERS_PER_TOKEN = 4
# for the special tokens of a pair
_FRAME_CHARACTERS = 16


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

    :param pair: number of its pair among the job's different ones.
    """

    job: Job
    pair: int
    tokens: TokenSequence

    def __len__(self) -> int:
        return len(self.tokens)


class Job:
    """The pairs of one call, and the future that its caller waits for.

    Equal pairs are scored once, so that they get equal scores. All methods but :meth:`recall` and
    :meth:`fail` are called under the queue's lock.

    :param pairs: the caller's pairs.
    :param layout: how they become sequences.
    :param n_outputs: columns of the logits.
    :param options: of the call; its timeouts begin now.
    :param first_index: the caller's index of the first pair.
    :ivar size: different pairs that have to be scored.
    :ivar characters: of these pairs, as far as they are read: about how much work they are.
    """

    def __init__(
        self,
        pairs: Sequence[TextPair],
        layout: AnyLayout,
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
        number_of: dict[TextPair, int] = {}
        self._numbers = [number_of.setdefault(pair, len(number_of)) for pair in pairs]
        self._pairs: Sequence[TextPair] = list(number_of)
        self.size = len(self._pairs)
        self._logits = np.full((self.size, n_outputs), -np.inf, dtype=np.float32)
        self._taken = 0
        self._tokenized = 0
        self._unscored = 0
        self._pair_tokens = array("i", bytes(array("i").itemsize * self.size))
        self._truncated: set[int] = set()
        self._with_cut_query: set[int] = set()
        self._cache: ScoreCache | None = None
        self._keys: list[Key] = []
        is_cut = options.long_documents != "window"
        self._most_characters = _CHARACTERS_PER_TOKEN * layout.max_length if is_cut else sys.maxsize
        self.characters = self._count_characters()

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
    def tokens(self) -> int:
        """Tokens of the pairs that have their sequences."""
        return sum(self._pair_tokens[: self.size])

    def recall(self, cache: ScoreCache) -> None:
        """Take what the cache remembers of the pairs, and let it remember the rest once scored.

        Called before the job is queued.
        """
        keys = keys_of(self.layout, self._pairs)
        found = cache.look_up(keys)
        # the pairs that have to be scored first, so that their numbers go on from 0
        order = sorted(range(len(found)), key=lambda number: found[number] is not None)
        number_of = {number: place for place, number in enumerate(order)}
        self._numbers = [number_of[number] for number in self._numbers]
        for number, score in enumerate(found):
            if score is not None:
                self._take_remembered(number_of[number], score)
        self.size = found.count(None)
        self._pairs = [self._pairs[number] for number in order[: self.size]]
        self._keys = [keys[number] for number in order[: self.size]]
        self._cache = cache
        self.characters = self._count_characters()

    def patience_s(self, now: float) -> float:
        """Seconds that the answer may take: ``max_wait_s``, or what is left until the deadline."""
        most = math.inf if self.max_wait_s is None else self.max_wait_s
        return min(most, self.deadline - now)

    def index_of(self, pair: int) -> int:
        """The caller's index of a pair, of its first occurrence."""
        return self._first_index + self._numbers.index(pair)

    def next_pairs(self, max_pairs: int, max_characters: int) -> tuple[int, Sequence[TextPair]]:
        """The next pairs to tokenize, at least one, and the number of the first."""
        start = self._taken
        characters = 0
        while self._taken < min(start + max_pairs, self.size):
            characters += sum(map(len, self._pairs[self._taken]))
            if characters > max_characters and self._taken > start:
                break
            self._taken += 1
        return start, self._pairs[start : self._taken]

    def add_sequences(self, start: int, sequences: Sequence[Sequence[TokenSequence]]) -> None:
        """Take the sequences of the pairs from number ``start`` on."""
        pending = [
            PendingSequence(self, pair, tokens)
            for pair, windows in enumerate(sequences, start)
            for tokens in windows
        ]
        self._tokenized += len(sequences)
        self._unscored += len(pending)
        for sequence in pending:
            self._pair_tokens[sequence.pair] += len(sequence)
            if sequence.tokens.document_truncated:
                self._truncated.add(sequence.pair)
            if sequence.tokens.query_truncated:
                self._with_cut_query.add(sequence.pair)
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

    @property
    def is_complete(self) -> bool:
        """Whether every pair has its logits."""
        # a fast device may have scored all that there is while the rest is being tokenized
        return self.is_tokenized and not self._unscored

    def answer(self) -> None:
        """Answer with the logits."""
        if self._cache is not None:
            self._cache.remember(zip(self._keys, map(self._scored, range(self.size)), strict=True))
        with suppress(InvalidStateError):
            self.future.set_result(JobResult(self._logits[self._numbers], self._usage()))

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
        self._keys = []
        self.ready = []
        self._taken = self.size

    def _take_remembered(self, pair: int, score: CachedScore) -> None:
        self._logits[pair] = np.frombuffer(score.logits, np.float32)
        self._pair_tokens[pair] = score.tokens
        if score.document_truncated:
            self._truncated.add(pair)
        if score.query_truncated:
            self._with_cut_query.add(pair)

    def _scored(self, pair: int) -> CachedScore:
        return CachedScore(
            self._logits[pair].tobytes(),
            self._pair_tokens[pair],
            pair in self._truncated,
            pair in self._with_cut_query,
        )

    def _count_characters(self) -> int:
        return sum(
            min(_FRAME_CHARACTERS + len(query) + len(document), self._most_characters)
            for query, document in self._pairs
        )

    def _usage(self) -> TokenUsage:
        truncated = [index for index, pair in enumerate(self._numbers) if pair in self._truncated]
        return TokenUsage(
            total_tokens=self.tokens,
            pair_tokens=array("i", (self._pair_tokens[pair] for pair in self._numbers)),
            truncated=truncated,
            truncated_documents=len(truncated),
            query_truncated=bool(self._with_cut_query),
        )
