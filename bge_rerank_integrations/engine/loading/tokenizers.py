"""A checkpoint's tokenizer, as it was saved, and its template for pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.recipes import Recipe
from bge_rerank_integrations.engine.tokenization.pairs import Template
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate, PromptTemplate
from bge_rerank_integrations.errors import ModelLoadError


def load_tokenizer(checkpoint: Checkpoint, recipe: Recipe) -> Tokenizer:
    """The checkpoint's fast tokenizer, without the truncation and padding that it was saved with.

    :raises ModelLoadError: if its file is missing or not readable.
    """
    folder = checkpoint.tokenizer_folder
    try:
        tokenizer = _read_tokenizer(folder)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelLoadError(f"{folder.name}: the tokenizer cannot be read: {error}") from error
    # before anything is tokenized: a file may ask for any amount of padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if recipe.lowercase:
        saved = tokenizer.normalizer
        lowercase = normalizers.Lowercase()
        tokenizer.normalizer = (
            lowercase if saved is None else normalizers.Sequence([lowercase, saved])
        )
    return tokenizer


def _read_tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    # transformers takes seconds to import
    from bge_rerank_integrations.engine.loading.transformers_models import convert_tokenizer

    return convert_tokenizer(folder)


def template_of(tokenizer: Tokenizer, checkpoint: Checkpoint, recipe: Recipe) -> Template:
    """What stands around a pair: the tokenizer's own template, or the recipe's.

    :raises UnsupportedModelError: if an encoder's tokenizer does not keep query and passage apart.
    """
    template = recipe.template
    if template is None:
        return PairTemplate.from_tokenizer(tokenizer, recipe.prompt)
    if isinstance(template, PromptTemplate) and template.has_bos:
        return replace(template, bos_id=_bos_id(tokenizer, checkpoint))
    return template


def _bos_id(tokenizer: Tokenizer, checkpoint: Checkpoint) -> int | None:
    """The id of the tokenizer's first token; None where it has none, or pads with it."""
    settings = checkpoint.read_json("tokenizer_config.json")
    bos, pad = (_token_text(settings.get(name)) for name in ("bos_token", "pad_token"))
    if bos is None or bos == pad:
        return None
    token: int | None = tokenizer.token_to_id(bos)
    return token


def _token_text(token: Any) -> str | None:
    """A special token's text; configs give it as text or with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
