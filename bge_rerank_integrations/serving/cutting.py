"""Limits on a document's tokens that one request asks for; the engine's own hold for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint
from bge_rerank_integrations.engine.loading.tokenizers import load_tokenizer
from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.inputs import check_documents, check_query
from bge_rerank_integrations.settings import EngineConfig


class DocumentCutter:
    """Counts tokens with a tokenizer of its own: the engine's belongs to the engine's thread.

    :param config: the engine's settings.
    :param max_length: tokens of a pair that the engine reads.
    """

    def __init__(self, config: EngineConfig, max_length: int) -> None:
        self._config = config
        self._max_length = max_length

    def cut(self, query: str, documents: Sequence[str], max_tokens: int) -> list[str]:
        """Cut each document after ``max_tokens`` tokens.

        :raises InputError: for texts that are not valid Unicode.
        """
        check_query(query)
        check_documents(documents)
        if max_tokens >= self._max_length and self._config.long_documents == "truncate":
            # the engine cuts earlier
            return list(documents)
        encodings = self._tokenizer.encode_batch(documents, add_special_tokens=False)
        return [
            document[: encoding.offsets[max_tokens - 1][1]]
            if len(encoding.ids) > max_tokens
            else document
            for document, encoding in zip(documents, encodings, strict=True)
        ]

    def refuse_long(self, query: str, documents: Sequence[str]) -> None:
        """Refuse what the engine would trim.

        An instruction to a decoder is not counted.

        :raises InputError: naming the document that does not fit beside the query, or that is
            not valid Unicode.
        """
        check_query(query)
        check_documents(documents)
        pairs = [(query, document) for document in documents]
        for index, encoding in enumerate(self._tokenizer.encode_batch(pairs)):
            if len(encoding.ids) > self._max_length:
                raise InputError(
                    f"query and document {index} have {len(encoding.ids)} tokens and the model "
                    f"reads {self._max_length}: shorten them, or allow truncation",
                    index,
                )

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = load_tokenizer(open_checkpoint(self._config))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
