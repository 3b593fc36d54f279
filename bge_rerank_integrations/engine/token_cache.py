"""Texts → token ids, remembering the texts that come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

TokenIds = npt.NDArray[np.int32]

# A token seldom stands for more characters than this; a text that needs more is read again, longer.
_CHARACTERS_PER_TOKEN = 8
# Tokens just before a cut may differ from those of the whole text; these are not relied upon.
_CUT_MARGIN_TOKENS = 64


class CachedTokenizer:
    """Token ids of texts, without special tokens, with a bounded memory of recent texts.

    A very long text is cut before it is tokenized, so that its cost is bounded by the tokens asked
    for and not by its length.

    :param tokenizer: without truncation and padding; must not be changed afterwards.
    :param max_cached_tokens: tokens kept, over all texts.
    """

    def __init__(self, tokenizer: Tokenizer, max_cached_tokens: int = 4_000_000) -> None:
        self._tokenizer = tokenizer
        self._max_cached_tokens = max_cached_tokens
        self._cached_tokens = 0
        self._cache: OrderedDict[tuple[str, int | None], TokenIds] = OrderedDict()
        self.hits = 0

    def encode(self, texts: Sequence[str], max_tokens: int | None) -> list[TokenIds]:
        """Token ids of each text, cut at ``max_tokens`` (None: not cut).

        :returns: one `(n,)` int32 array a text.
        """
        keys = [(text, max_tokens) for text in texts]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        for key in found:
            self._cache.move_to_end(key)
        self.hits += sum(key in found for key in keys)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        encoded = self._encode_head([text for text, _ in missing], max_tokens)
        for key, ids in zip(missing, encoded, strict=True):
            found[key] = ids
            self._remember(key, ids)
        return [found[key] for key in keys]

    def _encode_head(self, texts: Sequence[str], max_tokens: int | None) -> list[TokenIds]:
        """Token ids of the texts, reading only as many characters as ``max_tokens`` need."""
        if max_tokens is None:
            return self._encode_all(texts)
        heads = [max_tokens * _CHARACTERS_PER_TOKEN] * len(texts)
        encoded = self._encode_all([text[: heads[i]] for i, text in enumerate(texts)])
        enough = max_tokens + _CUT_MARGIN_TOKENS
        while short := [
            i for i, ids in enumerate(encoded) if len(ids) < enough and heads[i] < len(texts[i])
        ]:
            for i in short:
                heads[i] *= 4
            for i, ids in zip(
                short, self._encode_all([texts[i][: heads[i]] for i in short]), strict=True
            ):
                encoded[i] = ids
        return [ids[:max_tokens] for ids in encoded]

    def _encode_all(self, texts: Sequence[str]) -> list[TokenIds]:
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _remember(self, key: tuple[str, int | None], ids: TokenIds) -> None:
        self._cache[key] = ids
        # at least 1: a text without tokens takes a place too
        self._cached_tokens += max(len(ids), len(key[0]) // _CHARACTERS_PER_TOKEN, 1)
        while self._cached_tokens > self._max_cached_tokens:
            (text, _), oldest = self._cache.popitem(last=False)
            self._cached_tokens -= max(len(oldest), len(text) // _CHARACTERS_PER_TOKEN, 1)
