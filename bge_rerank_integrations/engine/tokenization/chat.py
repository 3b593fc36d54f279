"""Pairs in a chat template, tokenized as a whole.

A template may do anything with its texts, so it is rendered for each pair. A tokenizer may join
what meets at their ends, so no part of a rendered pair is tokenized by itself, but for a query or
document that is cut. What does not fit is cut off the document; what stands behind it in the
template stays (sentence-transformers, `base/modules/transformer.py`, does the same with a
template's end).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from ...errors import InputError, ModelLoadError, UnsupportedModelError
from ...setting_types import LongDocuments
from ...settings import CallOptions
from .pairs import (
    CHARACTERS_PER_TOKEN,
    CUT_MARGIN_TOKENS,
    CachedTokenizer,
    TextPair,
    TokenIds,
    TokenSequence,
    query_limit,
    to_ids,
    window_starts,
)

# two texts that tokenize differently from their first token to their last
_FILLERS = ("0", "1 2 3 4")
# tokens that a query may take more inside of the template than alone
_JUNCTION_TOKENS = 8


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A jinja template for messages of the roles system, query and document.

    :param source: the template.
    :param file: where it is from, for messages.
    :param is_structured: whether a message's content is a list of parts, and not a text.
    :param variables: what it is rendered with.
    :param prompt: the system message where the caller gives no instruction, or None.
    """

    source: str
    file: str
    is_structured: bool
    variables: Mapping[str, Any]
    prompt: str | None
    passage_type: ClassVar[int] = 0

    def __str__(self) -> str:
        return self.file

    def layout(self, options: CallOptions, tokenizer: Tokenizer, side: LongDocuments) -> ChatLayout:
        """See :class:`Template`."""
        instruction = self.prompt if options.instruction is None else options.instruction
        render = partial(self.render, instruction=instruction)
        rendered = render(_FILLERS[0], _FILLERS[0])
        around = len(tokenizer.encode(rendered, add_special_tokens=False)) + _JUNCTION_TOKENS
        max_length = options.max_length or 0
        return ChatLayout(
            render,
            tokenizer,
            query_limit(options, max_length - around - 1, f"the chat template {self}"),
            options.max_document_tokens,
            max_length,
            options.long_documents or side,
        )

    def check(self) -> None:
        """Render three pairs.

        :raises ModelLoadError: if the template fails.
        :raises UnsupportedModelError: if query or document do not reach what it renders.
        """
        try:
            base, query, document = (
                self.render(*pair, self.prompt) for pair in (("a", "b"), ("cc", "b"), ("a", "dd"))
            )
        except Exception as error:  # a template may raise anything
            raise ModelLoadError(
                f"{self.file} cannot be rendered: {type(error).__name__}: {error}"
            ) from error
        for role, rendered in (("query", query), ("document", document)):
            if rendered == base:
                raise UnsupportedModelError(f"{self.file} does not render messages of role {role}")

    def check_roles(self) -> None:
        """Render a pair under two roles that nobody has.

        :raises UnsupportedModelError: if they are rendered as query and document are: a template
            for any chat, which says nothing of how a model reads pairs.
        """
        texts = {}
        for roles in (("query", "document"), ("narrator", "juggler")):
            chat = self._messages("a", "b", None)
            for message, role in zip(chat, roles, strict=True):
                message["role"] = role
            try:
                text = self._render(chat)
            except Exception:  # a template may raise anything, also for roles that it does not know
                return
            texts[roles] = re.sub("|".join(roles), "role", text, flags=re.IGNORECASE)
        if len(set(texts.values())) == 1:
            raise UnsupportedModelError(
                f"{self.file} renders any role alike: it is for chats, and says nothing of how "
                "query and document are read"
            )

    def render(self, query: str, document: str, instruction: str | None) -> str:
        """The text that the model reads of a pair."""
        return self._render(self._messages(query, document, instruction))

    def _render(self, chat: list[dict[str, Any]]) -> str:
        # transformers takes seconds to import
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template([chat], chat_template=self.source, **self.variables)
        text: str = rendered[0][0]
        return text

    def _messages(self, query: str, document: str, instruction: str | None) -> list[dict[str, Any]]:
        texts = {"system": instruction or None, "query": query, "document": document}
        return [
            {
                "role": role,
                "content": [{"type": "text", "text": text}] if self.is_structured else text,
            }
            for role, text in texts.items()
            if text is not None
        ]


@dataclass(frozen=True, slots=True, eq=False)
class ChatLayout:
    """What a call's options mean for the sequences of a chat template.

    :param render: query and document → what the model reads of them.
    :param tokenizer: the checkpoint's.
    :param max_query_tokens: tokens of a query, at most.
    :param max_document_tokens: tokens of a document, where the call limits them.
    :param max_length: tokens of a sequence, at most.
    :param long_documents: what becomes of a longer one.
    """

    render: Callable[[str, str], str]
    tokenizer: Tokenizer
    max_query_tokens: int
    max_document_tokens: int | None
    max_length: int
    long_documents: LongDocuments

    def tokenize(
        self, pairs: Sequence[TextPair], cache: CachedTokenizer
    ) -> list[list[TokenSequence]]:
        """See :class:`Layout`."""
        cut = {query: self._cut(query, self.max_query_tokens) for query, _ in pairs}
        queries = [cut[query] for query, _ in pairs]
        documents = [document for _, document in pairs]
        if self.max_document_tokens is not None:
            cut_document = self._cut_left if self.long_documents == "truncate_left" else self._cut
            documents = [cut_document(document, self.max_document_tokens) for document in documents]
        texts = list(map(self.render, queries, documents))
        # one token more than fits tells that something must be cut
        limit = self.max_length + 1 if self.long_documents == "truncate" else None
        return [
            self._sequences(pair, query, document, ids)
            for pair, query, document, ids in zip(
                pairs, queries, documents, cache.encode(texts, limit), strict=True
            )
        ]

    def _sequences(
        self, pair: TextPair, query: str, document: str, ids: TokenIds
    ) -> list[TokenSequence]:
        """One sequence, or one a window.

        :param pair: the texts before they were cut.
        :param query: as it was rendered.
        :param document: as it was rendered.
        :param ids: of the rendered pair; at least one more than fit, where it is too long.
        """
        is_long = len(ids) > self.max_length
        query_truncated, document_truncated = query != pair[0], document != pair[1]
        if self.long_documents == "refuse" and (query_truncated or is_long):
            raise InputError(
                f"query and document have {len(ids)} tokens and the model reads {self.max_length}, "
                f"{self.max_query_tokens} of them of a query: shorten them, or allow truncation"
            )
        if is_long:
            start, tail = self._around(query, ids)
            budget = self.max_length - len(tail) - start
            end = len(ids) - _common(ids[::-1], tail[::-1])
        else:
            # where the document's tokens begin is not asked: no decoder needs to know
            start, tail, budget, end = 0, ids[:0], len(ids), len(ids)
        parts = [ids[start : start + budget]]
        if is_long and self.long_documents == "window":
            starts = window_starts(end - start, budget)
            parts = [ids[start:end][first : first + budget] for first in starts]
        else:
            if is_long and self.long_documents == "truncate_left":
                parts = [ids[start:end][-budget:]]
            document_truncated |= is_long
        return [
            TokenSequence(
                np.concatenate([ids[:start], part, tail]),
                start,
                start + len(part),
                query_truncated=query_truncated,
                document_truncated=document_truncated,
            )
            for part in parts
        ]

    def _around(self, query: str, ids: TokenIds) -> tuple[int, TokenIds]:
        """Where the document's tokens begin, and the ids behind the document's."""
        one, other = (
            to_ids(self.tokenizer.encode(self.render(query, filler), add_special_tokens=False).ids)
            for filler in _FILLERS
        )
        head = one[: _common(one, other)]
        tail = _common(one[::-1], other[::-1])
        return _common(head, ids), one[len(one) - tail :]

    def _cut_left(self, text: str, max_tokens: int) -> str:
        """The characters of the last tokens."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return text if len(encoding) <= max_tokens else text[encoding.offsets[-max_tokens][0] :]

    def _cut(self, text: str, max_tokens: int) -> str:
        """The characters of the first tokens."""
        characters = max_tokens * CHARACTERS_PER_TOKEN
        while True:
            encoding = self.tokenizer.encode(text[:characters], add_special_tokens=False)
            enough = len(encoding) >= max_tokens + CUT_MARGIN_TOKENS
            if enough or characters >= len(text):
                break
            characters *= 16
        return text if len(encoding) <= max_tokens else text[: encoding.offsets[max_tokens - 1][1]]


def _common(one: TokenIds, other: TokenIds) -> int:
    """How many ids both begin with."""
    shorter = min(len(one), len(other))
    different = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(different[0]) if len(different) else shorter
