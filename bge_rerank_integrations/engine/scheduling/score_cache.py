"""Logits of pairs that come again: exact, of one loaded model, bounded by their number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import NamedTuple

# the chance that two of a billion different pairs share a digest is below 1e-20
_DIGEST_BYTES = 16

# the layout, and the digest of both texts
Key = tuple[Hashable, bytes]


class CachedScore(NamedTuple):
    """What scoring a pair gave.

    :param logits: `(outputs,)` float32, as bytes: an array takes a hundred bytes more.
    :param tokens: of the pair, of all its windows.
    :param document_truncated: whether the document was not read to its end.
    :param query_truncated: whether the query was not.
    """

    logits: bytes
    tokens: int
    document_truncated: bool
    query_truncated: bool


class ScoreCache:
    """Remembers logits by layout and texts; may be used from any thread.

    Every loaded model has its own, so that model, revision, recipe, dtype and layers are the same
    for all entries. The options that change a logit are those that make a layout.

    :param max_scores: entries, at most; the least recently used ones go first. 0 turns it off.
    :ivar hits: different pairs of a call that were remembered.
    :ivar misses: different pairs of a call that had to be scored.
    """

    def __init__(self, max_scores: int) -> None:
        self.max_scores = max_scores
        self.hits = 0
        self.misses = 0
        self._lock = Lock()
        self._scores: OrderedDict[Key, CachedScore] = OrderedDict()

    def look_up(self, keys: Sequence[Key]) -> list[CachedScore | None]:
        """What is remembered of each pair; None where nothing is."""
        with self._lock:
            found = [self._scores.get(key) for key in keys]
            for key, score in zip(keys, found, strict=True):
                if score is not None:
                    self._scores.move_to_end(key)
            misses = found.count(None)
            self.misses += misses
            self.hits += len(found) - misses
        return found

    def remember(self, scores: Iterable[tuple[Key, CachedScore]]) -> None:
        """Take new entries in."""
        with self._lock:
            for key, score in scores:
                self._scores[key] = score
                self._scores.move_to_end(key)
            while len(self._scores) > self.max_scores:
                self._scores.popitem(last=False)


def keys_of(layout: Hashable, pairs: Iterable[tuple[str, str]]) -> list[Key]:
    """The keys of (query, document) pairs.

    :param layout: what the call's options mean for its sequences.
    """
    # most pairs of a call have the same query: it is hashed once
    queries: dict[str, blake2b] = {}
    keys = []
    for query, document in pairs:
        if query not in queries:
            text = query.encode()
            # its length first: ("ab", "c") and ("a", "bc") are different pairs
            queries[query] = blake2b(b"%d " % len(text), digest_size=_DIGEST_BYTES)
            queries[query].update(text)
        digest = queries[query].copy()
        digest.update(document.encode())
        keys.append((layout, digest.digest()))
    return keys
