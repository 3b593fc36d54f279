"""A checkpoint's chat template and the variables that it is rendered with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.tokenization.chat import ChatTemplate
from bge_rerank_integrations.errors import ModelLoadError

_SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# signs of a template that takes each message's content as a list of parts, as
# sentence-transformers' `base/modality.py` looks for them
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")


def has_chat_template(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer was saved with one."""
    return isinstance(_source(checkpoint)[1], str)


def read_chat_template(
    checkpoint: Checkpoint, kind: str | None, variables: Mapping[str, Any], prompt: str | None
) -> ChatTemplate:
    """The template, tried with three pairs.

    :param kind: whether contents are "flat" texts or "structured" lists; "auto" or None: see the
        template.
    :param variables: what else it is rendered with.
    :param prompt: the system message where the caller gives no instruction.
    :raises ModelLoadError: if there is none, or it fails.
    :raises UnsupportedModelError: if query or document do not reach what it renders.
    """
    file, source = _source(checkpoint)
    if not isinstance(source, str):
        raise ModelLoadError(
            f"{checkpoint.folder.name} is read through a chat template, and has neither "
            "chat_template.jinja nor a chat_template in tokenizer_config.json"
        )
    is_structured = any(sign in source for sign in _STRUCTURED) or not source
    template = ChatTemplate(
        source,
        f"{checkpoint.folder.name}/{file}",
        is_structured if kind not in ("flat", "structured") else kind == "structured",
        {**_special_tokens(checkpoint), **variables},
        prompt,
    )
    template.check()
    return template


def _source(checkpoint: Checkpoint) -> tuple[str, Any]:
    """The file of the chat template, and what stands there for it."""
    path = checkpoint.path("chat_template.jinja")
    if path.is_file():
        return path.name, path.read_text(encoding="utf-8")
    source = checkpoint.read_json("tokenizer_config.json").get("chat_template")
    if isinstance(source, list):
        named = {each["name"]: each.get("template") for each in source if "name" in each}
        source = named.get("default")
    return "tokenizer_config.json", source


def _special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    """Texts of the special tokens by their names; older checkpoints have a file for them."""
    config = checkpoint.read_json("tokenizer_config.json")
    older = checkpoint.read_json("special_tokens_map.json")
    texts = {}
    for name in (f"{kind}_token" for kind in _SPECIAL_TOKENS):
        token = config.get(name, older.get(name))
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            texts[name] = text
    return texts
