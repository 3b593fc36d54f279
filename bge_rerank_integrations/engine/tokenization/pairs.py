"""(query, document) texts → token sequences.

Every model reads `before · query · between · passage · after`. The query is cut at its limit, then
the passage alone is trimmed to what is left (FlagEmbedding, `base.py` of
`inference/reranker/encoder_only` and `decoder_only`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.tokenization.chat import ChatLayout, ChatTemplate
from bge_rerank_integrations.engine.tokenization.templates import (
    Frame,
    PairTemplate,
    PromptTemplate,
)
from bge_rerank_integrations.engine.tokenization.token_cache import (
    CachedTokenizer,
    TokenIds,
    TokenSequence,
    to_ids,
    window_starts,
)
from bge_rerank_integrations.errors import ConfigurationError, InputError
from bge_rerank_integrations.setting_types import LongDocuments
from bge_rerank_integrations.settings import DEFAULT_MAX_LENGTH, CallOptions

logger = logging.getLogger(__name__)

# layouts to remember; every instruction makes one
_MAX_LAYOUTS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What a call's options mean for its sequences.

    :param frame: what stands around the texts.
    :param max_query_tokens: tokens of the query's part, at most.
    :param max_document_tokens: tokens of a document, where the call limits them.
    :param max_length: tokens of the passage's part, at most, unless it is read in windows.
    :param budget: tokens of query, passage and what stands between them, at most.
    :param long_documents: what becomes of a passage that is longer.
    :param cuts_whole_part: whether it is cut with what stands before it, as the tokenizer was saved
        to cut.
    """

    frame: Frame
    max_query_tokens: int
    max_document_tokens: int | None
    max_length: int
    budget: int
    long_documents: LongDocuments
    cuts_whole_part: bool = False

    @property
    def known_query_tokens(self) -> int | None:
        """Tokens of the query's part that have to be known; None means all."""
        # one more than is read tells whether there is more
        return None if self.long_documents == "refuse" else self.max_query_tokens + 1

    @property
    def known_passage_tokens(self) -> int | None:
        """Tokens of the passage's part that have to be known; None means all."""
        if self.long_documents == "truncate_left":
            return None
        limits = []
        if self.max_passage_tokens is not None:
            limits.append(self.max_passage_tokens + 1)
        if self.long_documents == "truncate":
            # a larger limit of the call must not make the tokenizer read more
            limits.append(self.max_length + 1)
        return min(limits, default=None)

    @property
    def max_passage_tokens(self) -> int | None:
        """Tokens of the passage's part where the call limits the document's."""
        if self.max_document_tokens is None:
            return None
        return self.max_document_tokens + len(self.frame.passage_start)

    def tokenize(
        self, pairs: Sequence[tuple[str, str]], cache: CachedTokenizer
    ) -> list[list[TokenSequence]]:
        """Tokenize pairs.

        :returns: as many lists as ``pairs``, none of them empty.
        :raises InputError: if a document is too long and is to be refused.
        """
        queries = [query.join(self.frame.around_query) for query, _ in pairs]
        passages = [document.join(self.frame.around_passage) for _, document in pairs]
        return [
            self.sequences(query, passage)
            for query, passage in zip(
                cache.encode(queries, self.known_query_tokens),
                cache.encode(passages, self.known_passage_tokens),
                strict=True,
            )
        ]

    def sequences(self, query: TokenIds, passage: TokenIds) -> list[TokenSequence]:
        """One sequence, or one a window; each has at least one token of the passage's part.

        :param query: ids of the query's part, :attr:`known_query_tokens` at most.
        :param passage: ids of the passage's part, :attr:`known_passage_tokens` at most.
        :raises InputError: if one of them is too long and ``long_documents`` is ``"refuse"``.
        """
        frame = self.frame
        if self.cuts_whole_part and len(passage) + len(query) + len(frame.between) > self.budget:
            return [self._cut_whole_part(query, passage)]
        is_windowed = self.long_documents == "window"
        head = np.concatenate([frame.before, query[: self.max_query_tokens], frame.between])
        around = len(head) + len(frame.after)
        budget = self.budget + len(frame.before) - len(head)
        whole, passage = len(passage), self._cut(passage, self.max_passage_tokens)
        parts = [self._cut(passage, budget if is_windowed else min(budget, self.max_length))]
        if self.long_documents == "refuse":
            self._check_lengths(query, passage, len(parts[0]), around)
        is_truncated = whole > len(passage if is_windowed else parts[0])
        if is_windowed and len(passage) > budget:
            start = frame.passage_start
            rest, budget = passage[len(start) :], budget - len(start)
            parts = [
                np.concatenate([start, rest[first : first + budget]])
                for first in window_starts(len(rest), budget)
            ]
        return [
            TokenSequence(
                np.concatenate([head, part, frame.after]),
                len(head),
                len(head) + len(part),
                query_truncated=len(query) > self.max_query_tokens,
                document_truncated=is_truncated,
            )
            for part in parts
        ]

    def _cut(self, passage: TokenIds, limit: int | None) -> TokenIds:
        """The passage's part, its document cut on the side that ``long_documents`` names."""
        if limit is None or len(passage) <= limit or self.long_documents != "truncate_left":
            return passage[:limit]
        start = self.frame.passage_start
        return np.concatenate([start, passage[len(passage) - limit + len(start) :]])

    def _cut_whole_part(self, query: TokenIds, passage: TokenIds) -> TokenSequence:
        """The end of separator and passage together, as FlagEmbedding's tokenizer leaves it."""
        frame = self.frame
        head = np.concatenate([frame.before, query[: self.max_query_tokens]])
        part = np.concatenate([frame.between, passage[-self.max_length :]])
        part = part[-(self.budget + len(frame.before) - len(head)) :]
        return TokenSequence(
            np.concatenate([head, part, frame.after]),
            len(head),
            len(head) + len(part),
            query_truncated=len(query) > self.max_query_tokens,
            document_truncated=True,
        )

    def _check_lengths(self, query: TokenIds, passage: TokenIds, read: int, around: int) -> None:
        """Refuse what would be cut.

        :param read: tokens of the passage's part that the model would read.
        :param around: tokens of all but the passage's part.
        """
        if len(query) > self.max_query_tokens:
            raise InputError(
                f"the query has {len(query)} tokens and the model reads {self.max_query_tokens} of "
                "a query: shorten it, or allow truncation"
            )
        if len(passage) > read:
            raise InputError(
                f"query and document have {around + len(passage)} tokens and the model reads "
                f"{around + read}: shorten them, or allow truncation"
            )


Template = PairTemplate | PromptTemplate | ChatTemplate
AnyLayout = Layout | ChatLayout


class PairTokenizer:
    """Tokenizes pairs; calls with different options share its cache.

    :param tokenizer: the checkpoint's, without truncation and padding.
    :param template: what stands around a pair.
    :param max_positions: tokens that the model reads, at most; None where it does not say.
    :param saved_length: ``max_length`` of calls that name none, where the model was saved with one.
    :param truncates_left: whether calls that do not say keep the end of a long document.
    :param max_cached_tokens: token ids to remember for texts that come again.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        *,
        max_positions: int | None = None,
        saved_length: int | None = None,
        truncates_left: bool = False,
        max_cached_tokens: int = 0,
    ) -> None:
        self.cache = CachedTokenizer(tokenizer, max_cached_tokens)
        self._tokenizer = tokenizer
        self._template = template
        self._max_positions = max_positions
        self._default_length = saved_length or DEFAULT_MAX_LENGTH
        self._side: LongDocuments = "truncate_left" if truncates_left else "truncate"
        self._layouts: dict[tuple[object, ...], AnyLayout] = {}

    def max_length(self, options: CallOptions) -> int:
        """Tokens of a pair, at most: the option or the default, within the model's own limit."""
        asked = options.max_length or self._default_length
        return min(asked, self._max_positions or asked)

    def count(self, text: str) -> int:
        """Tokens of a text, without special ones; may be asked from any thread."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def layout(self, options: CallOptions) -> AnyLayout:
        """What a call's options mean for its sequences; may be asked from any thread.

        :raises ConfigurationError: if the query can leave the passage no token, or for an
            instruction to a model that takes none.
        """
        # the other options change no sequence
        key = (
            options.max_length,
            options.query_max_length,
            options.max_document_tokens,
            options.long_documents,
            options.instruction,
        )
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _MAX_LAYOUTS:
                # the oldest goes; another thread may have taken it out
                self._layouts.pop(next(iter(self._layouts)), None)
            layout = self._layouts[key] = self._make_layout(options)
        return layout

    def __call__(
        self, pairs: Sequence[tuple[str, str]], layout: AnyLayout
    ) -> list[list[TokenSequence]]:
        """Tokenize pairs; called from one thread only.

        :returns: as many lists as ``pairs``, none of them empty.
        :raises InputError: if a document is too long and is to be refused.
        """
        return layout.tokenize(pairs, self.cache)

    def _make_layout(self, options: CallOptions) -> AnyLayout:
        is_saved_side = options.long_documents is None and self._side == "truncate_left"
        options = replace(options, long_documents=options.long_documents or self._side)
        max_length = self.max_length(options)
        if max_length < (options.max_length or self._default_length):
            logger.warning("max_length is %d: the model reads no more tokens", max_length)
        if isinstance(self._template, ChatTemplate):
            return ChatLayout.make(self._template, self._tokenizer, options, max_length)
        frame = self._template.frame(options.instruction, self._encode)
        around = len(frame.before) + len(frame.after)
        budget = max_length + frame.uncounted - around
        # a passage has one token at least
        longest_query = budget - len(frame.between) - len(frame.passage_start) - 1
        what_fits = f"with {around + len(frame.between)} tokens around query and document"
        if longest_query < 1:
            least = max_length + 1 - longest_query
            raise ConfigurationError(
                f"max_length must be at least {least} {what_fits}, got {max_length}"
            )
        given = options.query_max_length
        if given is not None and given > longest_query:
            raise ConfigurationError(
                f"query_max_length must be at most {longest_query} with max_length={max_length} "
                f"and {what_fits[5:]}, got {given}"
            )
        max_query_tokens = given or min(max_length * 3 // 4, longest_query)
        if isinstance(self._template, PairTemplate):
            prompt_tokens = len(self._encode(frame.around_query[0]))
            if prompt_tokens >= max_query_tokens:
                raise ConfigurationError(
                    f"max_length={max_length} leaves {max_query_tokens} tokens for prompt and "
                    f"query, and the prompt has {prompt_tokens}"
                )
        return Layout(
            frame=frame,
            max_query_tokens=max_query_tokens,
            max_document_tokens=options.max_document_tokens,
            max_length=max_length,
            budget=budget,
            long_documents=options.long_documents or self._side,
            cuts_whole_part=is_saved_side
            and frame.cuts_whole_part
            and options.max_document_tokens is None,
        )

    def _encode(self, text: str) -> TokenIds:
        return to_ids(self._tokenizer.encode(text, add_special_tokens=False).ids)
