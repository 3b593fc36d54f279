"""What the files beside ``tokenizer.json`` say: settings, added tokens, chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ...errors import ModelLoadError
from ..tokenization.chat import ChatTemplate
from .checkpoint import Checkpoint

_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# transformers' sign of a tokenizer that knows no limit
NO_LIMIT = 10**29

# transformers' classes by what tells them apart here, named without "Fast"
_CLASSES = json.loads(Path(__file__).with_name("tokenizer_classes.json").read_text("utf-8"))
# signs of a template that takes each message's content as a list of parts, as
# sentence-transformers' `base/modality.py` looks for them
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")


class TokenizerFiles:
    """What ``tokenizer_config.json`` and its older companions say; read when it is asked for.

    Every attribute and method raises ``ModelLoadError`` naming the file that cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What a tokenizer's class is made with."""
        settings = self.checkpoint.read_json("tokenizer_config.json")
        # newer files have all tokens in one place, and transformers leaves the older ones unread
        if "added_tokens_decoder" in settings:
            return settings
        # lists of tokens add up
        lists = {
            name: [*settings[name], *(token for token in value if token not in settings[name])]
            for name, value in self._older.items()
            if isinstance(value, list) and isinstance(settings.get(name), list)
        }
        return {**settings, **self._older, **lists}

    @cached_property
    def _older(self) -> dict[str, Any]:
        return self.checkpoint.read_json("special_tokens_map.json")

    @cached_property
    def kind(self) -> str:
        """Name of its class, without "Fast"; empty where nothing says it."""
        config = self.checkpoint.config
        named = self.settings.get("tokenizer_class") or config.get("tokenizer_class")
        kind = named or _CLASSES["model types"].get(self.checkpoint.model_type, "")
        return str(kind).removesuffix("Fast")

    def is_a(self, group: str) -> bool:
        """Whether its class is one of a group of ``tokenizer_classes.json``.

        :param group: ``bert`` and ``byte level``, by how they normalize and split; ``without token
            types``, by the default of ``model_input_names``; ``keeps Chinese``: of ``bert``, those
            that leave Chinese characters as ``tokenizer.json`` has them; ``unigram``, whose
            normalizer transformers 5 makes anew; ``adds ends``, which write the template anew;
            ``slow``: without a conversion; ``generic``; ``[MASK]`` and ``<mask>``, by the mask
            token where the files name none.
        """
        return self.kind in _CLASSES[group]

    @property
    def has_own_class(self) -> bool:
        """Whether its class is in the checkpoint's own code, and not in transformers."""
        own = (self.settings.get("auto_map") or {}).get("AutoTokenizer") or ()
        names = [own] if isinstance(own, str) else own
        classes = {str(name).rpartition(".")[2].removesuffix("Fast") for name in names if name}
        is_known = self.is_a("bert") or self.is_a("without token types")
        return self.kind in classes and not is_known

    @property
    def has_types(self) -> bool:
        """Whether the model is told which tokens are the passage's."""
        names = self.settings.get("model_input_names")
        return not self.is_a("without token types") if names is None else "token_type_ids" in names

    @property
    def max_length(self) -> int | None:
        """Tokens of a pair that it was saved with; None if there is no limit."""
        saved: Any = self.settings.get("model_max_length", self.settings.get("max_len"))
        is_number = isinstance(saved, (int, float)) and not isinstance(saved, bool)
        return int(saved) if is_number and 0 < saved < NO_LIMIT else None

    def token(self, name: str) -> str | None:
        """A special token's text."""
        return token_text(self.settings.get(name, self._older.get(name)))

    def bos(self, default: str | None) -> str | None:
        """The text of the first token of a sequence; None where it has none, or pads with it.

        :param default: where neither the files nor the tokenizer's class say it.
        """
        known = {**self._older, **self.settings}
        bos = token_text(known.get("bos_token", _CLASSES["bos"].get(self.kind, default)))
        return None if bos == self.token("pad_token") else bos

    def added_tokens(self, tokenizer: Tokenizer) -> list[AddedToken]:
        """Tokens beside the vocabulary, as `PreTrainedTokenizerFast` adds them, in order."""
        settings, numbered = self.settings, {}
        extra = settings.get("extra_special_tokens")
        extra = extra or settings.get("additional_special_tokens") or []
        own = settings.get("model_specific_special_tokens") or {}
        if isinstance(extra, Mapping):
            own, extra = {**own, **extra}, []
        named = {name: settings.get(name) for name in _NAMED}
        texts = {token_text(token) for token in (*named.values(), *own.values(), *extra)}
        if "added_tokens_decoder" in settings:
            for number, token in settings["added_tokens_decoder"].items():
                numbered[int(number)] = _added(token, is_special=token_text(token) in texts)
        else:
            for text, number in self.checkpoint.read_json("added_tokens.json").items():
                numbered[int(number)] = _added(text, is_special=text in texts)
        tokens = [token for _, token in sorted(numbered.items())]
        known = tokenizer.get_added_tokens_decoder().values()
        texts = {token.content for token in (*known, *tokens)}
        default = next((mask for mask in ("[MASK]", "<mask>") if self.is_a(mask)), None)
        mask = settings.get("mask_token", default)
        named["mask_token"] = mask
        if isinstance(mask, str) and mask not in texts and default == "<mask>":
            # the space before it is part of it
            named["mask_token"] = {"content": mask, "lstrip": True}
        special: dict[str | None, Any] = {}
        for token in (*named.values(), *own.values(), *extra):
            special.setdefault(token_text(token), token)
        return tokens + [
            _added(token, is_special=True)
            for text, token in special.items()
            if text and text not in texts
        ]

    @cached_property
    def _chat_source(self) -> tuple[str, Any]:
        """The file of the chat template, and what stands there for it."""
        path = self.checkpoint.path("chat_template.jinja")
        if path.is_file():
            return path.name, path.read_text(encoding="utf-8")
        source = self.settings.get("chat_template")
        if isinstance(source, list):
            named = {each["name"]: each.get("template") for each in source if "name" in each}
            source = named.get("default")
        return "tokenizer_config.json", source

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer was saved with one."""
        return isinstance(self._chat_source[1], str)

    def chat_template(
        self, kind: str | None, variables: Mapping[str, Any], prompt: str | None
    ) -> ChatTemplate:
        """The chat template, tried with three pairs.

        :param kind: whether contents are "flat" texts or "structured" lists; "auto" or None: see
            the template.
        :param variables: what else it is rendered with.
        :param prompt: the system message where the caller gives no instruction.
        :raises ModelLoadError: if there is none, or it fails.
        :raises UnsupportedModelError: if query or document do not reach what it renders.
        """
        (file, source), folder = self._chat_source, self.checkpoint.folder.name
        if not isinstance(source, str):
            raise ModelLoadError(
                f"{folder} is read through a chat template, and has neither chat_template.jinja "
                "nor a chat_template in tokenizer_config.json"
            )
        is_structured = any(sign in source for sign in _STRUCTURED) or not source
        tokens = {name: text for name in _NAMED if (text := self.token(name)) is not None}
        template = ChatTemplate(
            source,
            f"{folder}/{file}",
            is_structured if kind not in ("flat", "structured") else kind == "structured",
            {**tokens, **variables},
            prompt,
        )
        template.check()
        return template


def token_text(token: Any) -> str | None:
    """A special token's text; configs give it as text or with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _added(token: Any, *, is_special: bool) -> AddedToken:
    properties = token if isinstance(token, dict) else {"content": token, "special": is_special}
    normalized = not properties.get("special", False)
    is_special = is_special or bool(properties.get("special"))
    names = ("lstrip", "rstrip", "single_word")
    return AddedToken(
        properties["content"],
        special=is_special,
        normalized=bool(properties.get("normalized", normalized)),
        **{name: bool(properties.get(name, False)) for name in names},
    )


def slow_message(folder: str, kind: str) -> str:
    """Why a tokenizer that runs in Python is refused."""
    return (
        f"{folder} has a {kind}, which is a slow tokenizer only: it runs in Python, and "
        "transformers has no conversion of it. Only tokenizers that a tokenizer.json can describe "
        "are run here"
    )
