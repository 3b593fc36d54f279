"""Pairs within fixed tokens: those of a prompt, or the special ones of an encoder.

Every model reads `before · query · between · passage · after`, each part tokenized by itself. The
query is cut at its limit, then the passage alone is trimmed to what is left (FlagEmbedding,
`base.py` of `inference/reranker/encoder_only` and `decoder_only`). Cuts between parts stand where a
tokenizer cuts anyway, so that the ids equal those of the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from ...errors import ConfigurationError, InputError, UnsupportedModelError
from ...setting_types import LongDocuments
from ...settings import CallOptions
from .pairs import (
    CachedTokenizer,
    TextPair,
    TokenIds,
    TokenSequence,
    query_limit,
    to_ids,
    window_starts,
)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The fixed tokens around a pair: prefix, infix and suffix, and texts beside its own.

    :param before: ids before the query's part.
    :param between: ids between query and passage.
    :param after: ids after the passage's part.
    :param around_query: texts right before and after the query, tokenized with it.
    :param around_passage: texts right before and after the document, tokenized with it.
    :param passage_start: ids that every window of a passage begins with.
    :param uncounted: tokens granted beyond ``max_length``.
    """

    before: TokenIds
    between: TokenIds
    after: TokenIds
    around_query: tuple[str, str] = ("", "")
    around_passage: tuple[str, str] = ("", "")
    passage_start: TokenIds = field(default_factory=lambda: to_ids(()))
    uncounted: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FrameLayout:
    """What a call's options mean for sequences within a frame.

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

    @classmethod
    def of(cls, frame: Frame, options: CallOptions, side: LongDocuments) -> FrameLayout:
        """The layout of a call's options; parameters and errors as those of :class:`Template`."""
        max_length = options.max_length or 0
        around = len(frame.before) + len(frame.after)
        budget = max_length + frame.uncounted - around
        # a passage has one token at least
        longest_query = budget - len(frame.between) - len(frame.passage_start) - 1
        tokens = f"{around + len(frame.between)} tokens around query and document"
        return cls(
            frame,
            query_limit(options, longest_query, tokens),
            options.max_document_tokens,
            max_length,
            budget,
            options.long_documents or side,
        )

    @property
    def query_tokens_to_read(self) -> int | None:
        """Tokens of the query's part that have to be known; None means all."""
        # one more than is read tells whether there is more
        return None if self.long_documents == "refuse" else self.max_query_tokens + 1

    @property
    def passage_tokens_to_read(self) -> int | None:
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
        self, pairs: Sequence[TextPair], cache: CachedTokenizer
    ) -> list[list[TokenSequence]]:
        """See :class:`Layout`."""
        queries = [query.join(self.frame.around_query) for query, _ in pairs]
        passages = [document.join(self.frame.around_passage) for _, document in pairs]
        return [
            self.sequences(query, passage)
            for query, passage in zip(
                cache.encode(queries, self.query_tokens_to_read),
                cache.encode(passages, self.passage_tokens_to_read),
                strict=True,
            )
        ]

    def sequences(self, query: TokenIds, passage: TokenIds) -> list[TokenSequence]:
        """One sequence, or one a window; each has at least one token of the passage's part.

        :param query: ids of the query's part, :attr:`query_tokens_to_read` at most.
        :param passage: ids of the passage's part, :attr:`passage_tokens_to_read` at most.
        :raises InputError: if one of them is too long and ``long_documents`` is ``"refuse"``.
        """
        frame = self.frame
        head = np.concatenate([frame.before, query[: self.max_query_tokens]])
        if self.cuts_whole_part and len(passage) + len(query) + len(frame.between) > self.budget:
            # separator and passage together, as FlagEmbedding's tokenizer leaves them
            part = np.concatenate([frame.between, passage[-self.max_length :]])
            parts, is_truncated = [part[-(self.budget + len(frame.before) - len(head)) :]], True
        else:
            head = np.concatenate([head, frame.between])
            parts, is_truncated = self._parts(query, passage, len(head))
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

    def _parts(
        self, query: TokenIds, passage: TokenIds, before: int
    ) -> tuple[list[TokenIds], bool]:
        """The passage's part, or its windows, and whether its document is truncated.

        :param before: tokens before the passage's part.
        """
        frame = self.frame
        is_windowed = self.long_documents == "window"
        budget = self.budget + len(frame.before) - before
        whole, passage = len(passage), self._cut(passage, self.max_passage_tokens)
        parts = [self._cut(passage, budget if is_windowed else min(budget, self.max_length))]
        if self.long_documents == "refuse":
            self._check_lengths(query, passage, len(parts[0]), before + len(frame.after))
        is_truncated = whole > len(passage if is_windowed else parts[0])
        if is_windowed and len(passage) > budget:
            start = frame.passage_start
            rest, budget = passage[len(start) :], budget - len(start)
            parts = [
                np.concatenate([start, rest[first : first + budget]])
                for first in window_starts(len(rest), budget)
            ]
        return parts, is_truncated

    def _cut(self, passage: TokenIds, limit: int | None) -> TokenIds:
        """The passage's part, its document cut on the side that ``long_documents`` names."""
        if limit is None or len(passage) <= limit or self.long_documents != "truncate_left":
            return passage[:limit]
        start = self.frame.passage_start
        return np.concatenate([start, passage[len(passage) - limit + len(start) :]])

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


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """An encoder's special tokens around a pair, read off the checkpoint's own tokenizer.

    :param before: ids before the query (`<s>` in XLM-R).
    :param between: ids between query and passage (`</s></s>`).
    :param after: ids after the passage (`</s>`).
    :param passage_type: token type of passage and ``after`` (1 in BERT, 0 in XLM-R).
    :param prompt: text before the query, where the model was trained with one; an instruction takes
        its place.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    passage_type: int
    prompt: str | None = None

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, prompt: str | None = None, *, has_types: bool = True
    ) -> PairTemplate:
        """Read the template off an example.

        :param has_types: whether the model reads token types.
        :raises UnsupportedModelError: if the tokenizer does not keep query and passage apart, or
            has other types than the two.
        """
        pair = tokenizer.encode("a", "b")
        sequences = pair.sequence_ids
        if not sum(pair.special_tokens_mask) or 0 not in sequences or 1 not in sequences:
            raise UnsupportedModelError(
                "the tokenizer has no template for pairs of texts, and no chat template: nothing "
                "says how the model reads a pair. If it is one of the catalog's models, recipe= "
                "names the text"
            )
        query, passage = sequences.index(0), sequences.index(1)
        types = pair.type_ids
        if has_types and (any(types[:passage]) or len(set(types[passage:])) > 1):
            raise UnsupportedModelError(
                f"the tokenizer gives a pair the token types {types}; those that are run are 0 up "
                "to the passage, and one from there on"
            )
        query_end = query + sequences.count(0)
        passage_end = passage + sequences.count(1)
        return cls(
            before=tuple(pair.ids[:query]),
            between=tuple(pair.ids[query_end:passage]),
            after=tuple(pair.ids[passage_end:]),
            passage_type=types[passage] if has_types else 0,
            prompt=prompt,
        )

    def layout(
        self, options: CallOptions, tokenizer: Tokenizer, side: LongDocuments
    ) -> FrameLayout:
        """See :class:`Template`; only a model with a prompt takes an instruction."""
        instruction = options.instruction
        if instruction is not None and self.prompt is None:
            raise ConfigurationError(
                "instruction must be None for a model that reads query and document alone, got "
                f"{instruction!r}"
            )
        prompt = (self.prompt or "") if instruction is None else instruction
        before, between, after = map(to_ids, (self.before, self.between, self.after))
        frame = Frame(before, between, after, around_query=(prompt, ""))
        layout = FrameLayout.of(frame, options, side)
        prompt_tokens = len(encode(tokenizer, prompt))
        if prompt_tokens >= layout.max_query_tokens:
            raise ConfigurationError(
                f"max_length={layout.max_length} leaves {layout.max_query_tokens} tokens for "
                f"prompt and query, and the prompt has {prompt_tokens}"
            )
        return layout


def encode(tokenizer: Tokenizer, text: str) -> TokenIds:
    """Ids of a text without special tokens."""
    return to_ids(tokenizer.encode(text, add_special_tokens=False).ids)
