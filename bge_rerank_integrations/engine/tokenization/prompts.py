"""(query, passage) texts → token ids of a decoder's prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.tokenization.pairs import window_starts
from bge_rerank_integrations.engine.tokenization.templates import PromptTemplate
from bge_rerank_integrations.engine.tokenization.token_cache import CachedTokenizer, TokenIds
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair
from bge_rerank_integrations.errors import ConfigurationError


class PromptTokenizer:
    """Tokenizes pairs for decoders.

    The query's part is cut at ``query_max_length``, then the passage's part is trimmed to what is
    left (see :class:`PromptTemplate` for what counts).

    :param tokenizer: the checkpoint's; its truncation and padding are switched off.
    :param template: the texts round a pair.
    :param bos_id: the tokenizer's first token, or None.
    :param prompt: the caller's instruction; None means the template's own.
    :param max_length: tokens of a pair.
    :param query_max_length: None means three quarters of ``max_length``.
    :param windows: read a passage that is too long in overlapping windows instead of trimming it.
    :raises ConfigurationError: if prompt and query can leave the passage no room.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PromptTemplate,
        *,
        bos_id: int | None,
        prompt: str | None,
        max_length: int,
        query_max_length: int | None,
        windows: bool,
        max_cached_tokens: int = 0,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.texts = CachedTokenizer(tokenizer, max_cached_tokens)
        self._passage_text = template.passage
        asked = template.prompt if prompt is None else prompt
        query_text = template.query if prompt is None else template.prompted_query
        self._query_text = (query_text or template.query).replace("{prompt}", asked)
        bos = [bos_id] if template.has_bos and bos_id is not None else []
        self._before = _join([np.array(bos, np.int32), *self._encode([template.before], asked)])
        self._after = _join(self._encode(template.after, asked))
        (self._separator,) = self._encode([template.separator], asked)
        # what a window that is not the first begins with, so that it still reads as a passage
        (self._passage_start,) = self._encode([template.passage.replace("{passage}", "")], asked)
        self._windows = windows
        self._max_length = max_length
        self._query_max_length = query_max_length or max_length * 3 // 4
        self._room = (
            max_length
            + (template.uncounted_before - 1) * len(self._before)
            + (template.uncounted_after - 1) * len(self._after)
        )
        least = self._query_max_length + len(self._separator) + len(self._passage_start) + 1
        if self._room < least:
            raise ConfigurationError(
                f"max_length must be at least {max_length + least - self._room} with a prompt of "
                f"{len(self._before) + len(self._after)} tokens and a query of up to "
                f"{self._query_max_length}, got {max_length}"
            )

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
        """Tokenize pairs; each gives one sequence, or one a window.

        :returns: as many lists as ``pairs``, none of them empty.
        """
        queries = [self._query_text.replace("{query}", query) for query, _ in pairs]
        passages = [self._passage_text.replace("{passage}", passage) for _, passage in pairs]
        limit = None if self._windows else self._max_length
        return [
            self._fill(query, passage)
            for query, passage in zip(
                self.texts.encode(queries, self._query_max_length),
                self.texts.encode(passages, limit),
                strict=True,
            )
        ]

    def _fill(self, query: TokenIds, passage: TokenIds) -> list[TokenizedPair]:
        head = _join([self._before, query, self._separator])
        room = self._room - len(query) - len(self._separator)
        return [self._sequence(head, part) for part in self._parts(passage, room)]

    def _parts(self, passage: TokenIds, room: int) -> list[TokenIds]:
        """The passage's head, or windows over it that all begin like a passage."""
        if not self._windows or len(passage) <= room:
            return [passage[:room]]
        start = self._passage_start
        rest, room = passage[len(start) :], room - len(start)
        return [_join([start, rest[i : i + room]]) for i in window_starts(len(rest), room)]

    def _sequence(self, head: TokenIds, passage: TokenIds) -> TokenizedPair:
        return TokenizedPair(
            _join([head, passage, self._after]), len(head), len(head) + len(passage)
        )

    def _encode(self, texts: Sequence[str], prompt: str) -> list[TokenIds]:
        return self.texts.encode([text.replace("{prompt}", prompt) for text in texts], None)


def _join(parts: Sequence[TokenIds]) -> TokenIds:
    return np.concatenate(parts, dtype=np.int32)
