"""(query, document) texts → sequences of token ids, with a cache of texts that come again."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ...errors import ConfigurationError
from ...setting_types import LongDocuments
from ...settings import DEFAULT_MAX_LENGTH, CallOptions

logger = logging.getLogger(__name__)

TokenIds = npt.NDArray[np.int32]
TextPair = tuple[str, str]

# layouts to remember; every instruction makes one
_MAX_LAYOUTS = 64


def to_ids(ids: Sequence[int]) -> TokenIds:
    """Token ids as an array, `(n,)`."""
    return np.array(ids, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """Token ids of a pair, or of one window of it.

    :param ids: token ids with the special tokens, `(n,)` int32.
    :param passage_start: index of the passage's first token; the query stands before it.
    :param passage_end: index after the passage's last token.
    :param query_truncated: whether the query goes on after what is in here.
    :param document_truncated: whether the document goes on after all that is read of it.
    """

    ids: TokenIds
    passage_start: int
    passage_end: int
    query_truncated: bool = False
    document_truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)


def window_starts(tokens: int, budget: int) -> list[int]:
    """First tokens of windows that overlap by half; the last one ends with the text."""
    if tokens <= budget:
        return [0]
    step = max(budget // 2, 1)
    return [*range(0, tokens - budget, step), tokens - budget]


# A token seldom stands for more characters than this; a text that needs more is read again, longer.
CHARACTERS_PER_TOKEN = 8
# Tokens just before a cut may differ from those of the whole text; these are not relied upon.
CUT_MARGIN_TOKENS = 64
# A longer text is tokenized in parts: one part's ids at a time become Python objects, which holds
# up all other threads of the process for as long.
_PART_CHARACTERS = 32_768
# what an entry of the cache takes besides its text and its ids: a key, an array, a place
_ENTRY_BYTES = 400
# a token's id and its characters, with their share of the entry
_TOKEN_BYTES = 12


class CachedTokenizer:
    """Token ids of texts, without special tokens, with a bounded memory of recent texts.

    A very long text is cut before it is tokenized, so that its cost is bounded by the tokens asked
    for and not by its length. Where no cut is asked for, it is tokenized in parts that end before
    a space where there is one; a token across two parts is then two tokens.

    :param tokenizer: without truncation and padding; must not be changed afterwards.
    :param max_cached_tokens: tokens to remember, with 12 bytes each: a text that takes more because
        it is very short, or cut, or not ASCII counts as more tokens than it has.
    """

    def __init__(self, tokenizer: Tokenizer, max_cached_tokens: int = 0) -> None:
        self._tokenizer = tokenizer
        self._max_cached_bytes = max_cached_tokens * _TOKEN_BYTES
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[str, int | None], TokenIds] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def encode(self, texts: Sequence[str], max_tokens: int | None) -> list[TokenIds]:
        """Token ids of each text, cut at ``max_tokens`` (None: not cut).

        :returns: one `(n,)` int32 array a text.
        """
        keys = [(text, max_tokens) for text in texts]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        for key in found:
            self._cache.move_to_end(key)
        hits = sum(key in found for key in keys)
        self.hits += hits
        self.misses += len(keys) - hits
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        missing_texts = [text for text, _ in missing]
        if max_tokens is None:
            encoded = self._encode_whole(missing_texts)
        else:
            encoded = self._encode_heads(missing_texts, max_tokens)
        for key, ids in zip(missing, encoded, strict=True):
            found[key] = ids
            self._remember(key, ids)
        return [found[key] for key in keys]

    def _encode_heads(self, texts: Sequence[str], max_tokens: int) -> list[TokenIds]:
        """Token ids of the texts, reading only as many characters as ``max_tokens`` need."""
        heads = [max_tokens * CHARACTERS_PER_TOKEN] * len(texts)
        encoded = self._encode_all([text[: heads[i]] for i, text in enumerate(texts)])
        enough = max_tokens + CUT_MARGIN_TOKENS
        while short := [
            i for i, ids in enumerate(encoded) if len(ids) < enough and heads[i] < len(texts[i])
        ]:
            for i in short:
                heads[i] *= 16
            for i, ids in zip(
                short, self._encode_all([texts[i][: heads[i]] for i in short]), strict=True
            ):
                encoded[i] = ids
        # copied: a slice would keep all the ids it was cut from
        return [ids[:max_tokens].copy() for ids in encoded]

    def _encode_whole(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of the texts to their ends."""
        parts = [list(_parts(text)) for text in texts]
        encoded = iter(self._encode_all([part for of_one in parts for part in of_one]))
        return [np.concatenate([next(encoded) for _ in of_one]) for of_one in parts]

    def _encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [to_ids(encoding.ids) for encoding in encodings]

    def _remember(self, key: tuple[str, int | None], ids: TokenIds) -> None:
        self._cache[key] = ids
        self._cached_bytes += _bytes(key[0], ids)
        while self._cached_bytes > self._max_cached_bytes:
            (text, _), oldest = self._cache.popitem(last=False)
            self._cached_bytes -= _bytes(text, oldest)


def _parts(text: str) -> Iterator[str]:
    """The text in parts of at least one character, or the empty text itself."""
    start = 0
    while len(text) - start > _PART_CHARACTERS:
        end = start + _PART_CHARACTERS
        space = text.rfind(" ", start + 1, end)
        end = end if space < 0 else space
        yield text[start:end]
        start = end
    yield text[start:]


def _bytes(text: str, ids: TokenIds) -> int:
    # not sys.getsizeof: it grows once the text's UTF-8 form was asked for, which is up to 4 bytes a
    # character beside the 4 of the text itself
    return len(text) * (1 if text.isascii() else 8) + ids.nbytes + _ENTRY_BYTES


class Layout(Protocol):
    """What a call's options mean for its sequences."""

    @property
    def max_length(self) -> int:
        """Tokens of a sequence, at most, but for those that a prompt is granted beyond it."""

    def tokenize(
        self, pairs: Sequence[TextPair], cache: CachedTokenizer
    ) -> list[list[TokenSequence]]:
        """Tokenize pairs; called from one thread only.

        :returns: as many lists as ``pairs``, none of them empty.
        :raises InputError: if a document is too long and is to be refused.
        """


class Template(Protocol):
    """What stands around the two texts of a pair."""

    @property
    def passage_type(self) -> int:
        """Token type of the passage; 0 where the model has no types."""

    def layout(self, options: CallOptions, tokenizer: Tokenizer, side: LongDocuments) -> Layout:
        """What a call's options mean for its sequences.

        :param options: with a ``max_length``.
        :param side: ``long_documents`` where the call says nothing.
        :raises ConfigurationError: if the query can leave the passage no token, or for an
            instruction to a model that takes none.
        """


def query_limit(options: CallOptions, longest: int, around: str) -> int:
    """Tokens of a query, at most: the option's, or three quarters of ``max_length``.

    :param longest: the most that leaves the passage a token.
    :param around: what else takes tokens, for the messages.
    :raises ConfigurationError: if that is none, or fewer than ``query_max_length``.
    """
    max_length, given = options.max_length or 0, options.query_max_length
    if longest < 1:
        raise ConfigurationError(
            f"max_length must be at least {max_length + 1 - longest} with {around}, got "
            f"{max_length}"
        )
    if given is not None and given > longest:
        raise ConfigurationError(
            f"query_max_length must be at most {longest} with max_length={max_length} and "
            f"{around}, got {given}"
        )
    return given or min(max_length * 3 // 4, longest)


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
        self.template = template
        self._tokenizer = tokenizer
        self._max_positions = max_positions
        self._default_length = saved_length or DEFAULT_MAX_LENGTH
        self._side: LongDocuments = "truncate_left" if truncates_left else "truncate"
        self._layouts: dict[tuple[object, ...], Layout] = {}

    def max_length(self, options: CallOptions) -> int:
        """Tokens of a pair, at most: the option or the default, within the model's own limit."""
        asked = options.max_length or self._default_length
        return min(asked, self._max_positions or asked)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special ones; may be asked from any thread."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def layout(self, options: CallOptions) -> Layout:
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

    def _make_layout(self, options: CallOptions) -> Layout:
        max_length = self.max_length(options)
        if max_length < (options.max_length or self._default_length):
            logger.warning("max_length is %d: the model reads no more tokens", max_length)
        options = replace(options, max_length=max_length)
        return self.template.layout(options, self._tokenizer, self._side)

    def sample(self, pairs: Sequence[TextPair]) -> list[TokenSequence]:
        """Sequences of pairs with the default options, past the cache."""
        windows = self.layout(CallOptions()).tokenize(pairs, CachedTokenizer(self._tokenizer))
        return [sequence for of_pair in windows for sequence in of_pair]

    def __call__(self, pairs: Sequence[TextPair], layout: Layout) -> list[list[TokenSequence]]:
        """Tokenize pairs; see :meth:`Layout.tokenize`."""
        return layout.tokenize(pairs, self.cache)
