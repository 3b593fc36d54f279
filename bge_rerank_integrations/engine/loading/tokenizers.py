"""A checkpoint's tokenizer, as it was saved, and the one of pairs that is made of it."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.families import Family
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.engine.tokenization.prompts import PromptTokenizer
from bge_rerank_integrations.errors import ModelLoadError
from bge_rerank_integrations.settings import EngineConfig


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's fast tokenizer, as it was saved."""
    folder = checkpoint.folder
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        # transformers takes seconds to import
        from bge_rerank_integrations.engine.loading.stock import convert_tokenizer

        return convert_tokenizer(folder)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelLoadError(f"{folder.name}: the tokenizer cannot be read: {error}") from error


def make_tokenizer(
    tokenizer: Tokenizer,
    config: EngineConfig,
    checkpoint: Checkpoint,
    family: Family,
    max_length: int,
) -> PairTokenizer | PromptTokenizer:
    """The tokenizer of pairs that a family reads.

    :raises ConfigurationError: if query and prompt can leave the passage no room.
    """
    windows = config.long_documents == "window"
    if family.template is None:
        return PairTokenizer(
            tokenizer,
            max_length=max_length,
            query_max_length=config.query_max_length,
            windows=windows,
            max_cached_tokens=config.max_cached_tokens,
        )
    return PromptTokenizer(
        tokenizer,
        family.template,
        bos_id=_bos_id(tokenizer, checkpoint),
        prompt=config.prompt,
        max_length=max_length,
        query_max_length=config.query_max_length,
        windows=windows,
        max_cached_tokens=config.max_cached_tokens,
    )


def _bos_id(tokenizer: Tokenizer, checkpoint: Checkpoint) -> int | None:
    """The id of the tokenizer's first token; None where it has none, or pads with it."""
    path = checkpoint.folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    bos, pad = (_token_text(settings.get(name)) for name in ("bos_token", "pad_token"))
    if bos is None or bos == pad:
        return None
    token: int | None = tokenizer.token_to_id(bos)
    return token


def _token_text(token: Any) -> str | None:
    """A special token's text; configs give it as text or with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
