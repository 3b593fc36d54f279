"""(query, passage) texts → token ids with special tokens, as FlagEmbedding makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.tokenization.token_cache import CachedTokenizer, TokenIds
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair
from bge_rerank_integrations.errors import ConfigurationError, UnsupportedModelError


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens round a pair, read off the checkpoint's own tokenizer.

    :param before: ids before the query (`<s>` in XLM-R).
    :param between: ids between query and passage (`</s></s>`).
    :param after: ids after the passage (`</s>`).
    :param passage_type: token type of passage and ``after`` (1 in BERT, 0 in XLM-R).
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    passage_type: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PairTemplate:
        """Read the template off an example.

        :raises UnsupportedModelError: if the tokenizer does not keep query and passage apart.
        """
        pair = tokenizer.encode("a", "b")
        sequences = pair.sequence_ids
        if not sum(pair.special_tokens_mask) or 0 not in sequences or 1 not in sequences:
            raise UnsupportedModelError("the tokenizer has no template for pairs of texts")
        query, passage = sequences.index(0), sequences.index(1)
        query_end = query + sequences.count(0)
        passage_end = passage + sequences.count(1)
        return cls(
            before=tuple(pair.ids[:query]),
            between=tuple(pair.ids[query_end:passage]),
            after=tuple(pair.ids[passage_end:]),
            passage_type=pair.type_ids[passage],
        )

    @property
    def tokens(self) -> int:
        """Special tokens in a pair."""
        return len(self.before) + len(self.between) + len(self.after)

    def fill(self, query: TokenIds, passage: TokenIds) -> TokenizedPair:
        """Put query and passage in their places."""
        parts = (self.before, query, self.between, passage, self.after)
        start = len(self.before) + len(query) + len(self.between)
        ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
        return TokenizedPair(ids, start, start + len(passage))


class PairTokenizer:
    """Tokenizes pairs for encoders.

    The query is cut at ``query_max_length``, then the passage alone is trimmed until the whole has
    ``max_length`` tokens (FlagEmbedding, `inference/reranker/encoder_only/base.py`).

    :param tokenizer: the checkpoint's; its truncation and padding are switched off.
    :param max_length: tokens of a pair, special tokens included.
    :param query_max_length: None means three quarters of ``max_length``.
    :param windows: read a passage that is too long in overlapping windows instead of trimming it.
    :param max_cached_tokens: token ids to remember for texts that come again.
    :raises ConfigurationError: if the query can leave the passage no room.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        query_max_length: int | None = None,
        windows: bool = False,
        max_cached_tokens: int = 0,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.template = PairTemplate.of(tokenizer)
        longest_query = max_length - self.template.tokens - 1
        if query_max_length is not None and query_max_length > longest_query:
            raise ConfigurationError(
                f"query_max_length must be at most {longest_query} with max_length={max_length} "
                f"and {self.template.tokens} special tokens, got {query_max_length}"
            )
        self._max_length = max_length
        self._query_max_length = query_max_length or min(max_length * 3 // 4, longest_query)
        self._windows = windows
        self.texts = CachedTokenizer(tokenizer, max_cached_tokens)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
        """Tokenize pairs; each gives one sequence, or one a window.

        :returns: as many lists as ``pairs``, none of them empty.
        """
        queries = self.texts.encode([query for query, _ in pairs], self._query_max_length)
        limit = None if self._windows else self._max_length
        passages = self.texts.encode([passage for _, passage in pairs], limit)
        return [self._fill(q, p) for q, p in zip(queries, passages, strict=True)]

    def _fill(self, query: TokenIds, passage: TokenIds) -> list[TokenizedPair]:
        room = self._max_length - self.template.tokens - len(query)
        if not self._windows:
            return [self.template.fill(query, passage[:room])]
        return [
            self.template.fill(query, passage[i : i + room])
            for i in window_starts(len(passage), room)
        ]


def window_starts(tokens: int, room: int) -> list[int]:
    """First tokens of windows that overlap by half; the last one ends with the text."""
    if tokens <= room:
        return [0]
    step = max(room // 2, 1)
    return [*range(0, tokens - room, step), tokens - room]
