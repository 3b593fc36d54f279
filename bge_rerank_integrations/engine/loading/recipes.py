"""How a pair becomes a logit: the recipe of a checkpoint, and the catalog's in recipes.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Tokenizer

from ...setting_types import LongDocuments
from ...settings import CallOptions, EngineConfig
from ..scorers.heads import Head, HeadModule, Pooling
from ..scorers.weights import WeightFiles
from ..tokenization.chat import ChatTemplate
from ..tokenization.pairs import PairTokenizer, TokenIds, to_ids
from ..tokenization.templates import Frame, FrameLayout, encode
from .checkpoint import Checkpoint

# whose layers take packed attention as their own: no window, cap or scale that it would not see
PACKED_DECODERS = ("gemma", "llama", "mistral", "qwen2", "qwen3")
LAYER_SETTINGS = ("cutoff_layers", "compress_ratio", "compress_layers")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A decoder's texts around a pair.

    ``{instruction}``, ``{query}`` and ``{passage}`` stand for the instruction and the texts.

    :param query: the query's part; cut at ``query_max_length``.
    :param passage: the passage's part; cut to what ``max_length`` leaves.
    :param separator: between the two; counts as the passage's.
    :param after: what follows the pair, tokenized text by text.
    :param instruction: the instruction where the caller gives none.
    :param instructed_query: takes the place of ``query`` where the caller gives an instruction.
    :param before: what precedes the pair.
    :param has_bos: whether the tokenizer's first token, where it has one, precedes everything.
    :param bos_id: that token, once the tokenizer is known.
    :param uncounted_before: how often the tokens before the pair are granted beyond ``max_length``.
    :param uncounted_after: the same for the tokens after it.
    :param cuts_whole_part: whether a tokenizer that cuts on the left cuts what stands before the
        document too, from the separator on.
    """

    query: str
    passage: str
    separator: str
    after: tuple[str, ...]
    instruction: str = ""
    instructed_query: str | None = None
    before: str = ""
    has_bos: bool = False
    bos_id: int | None = None
    uncounted_before: int = 0
    uncounted_after: int = 0
    cuts_whole_part: bool = False
    passage_type: ClassVar[int] = 0

    def __str__(self) -> str:
        return repr("".join([self.before, self.query, self.separator, self.passage, *self.after]))

    def layout(
        self, options: CallOptions, tokenizer: Tokenizer, side: LongDocuments
    ) -> FrameLayout:
        """See :class:`Template`."""
        frame = self.frame(options.instruction, partial(encode, tokenizer))
        layout = FrameLayout.of(frame, options, side)
        says_nothing = options.long_documents is None and options.max_document_tokens is None
        cuts_whole_part = self.cuts_whole_part and says_nothing and side == "truncate_left"
        return replace(layout, cuts_whole_part=cuts_whole_part)

    def frame(self, instruction: str | None, encode: Callable[[str], TokenIds]) -> Frame:
        """The ids and texts around a pair; None means the template's own instruction."""
        asked = self.instruction if instruction is None else instruction
        query = self.query if instruction is None else self.instructed_query or self.query

        def fill(text: str) -> str:
            return text.replace("{instruction}", asked)

        # parted first: an instruction may hold the word {query} itself
        before_query, _, after_query = query.partition("{query}")
        before_passage, _, after_passage = self.passage.partition("{passage}")
        bos = to_ids(() if self.bos_id is None else (self.bos_id,))
        before = np.concatenate([bos, encode(fill(self.before))])
        after = np.concatenate([encode(fill(text)) for text in self.after])
        return Frame(
            before=before,
            between=encode(fill(self.separator)),
            after=after,
            around_query=(fill(before_query), fill(after_query)),
            around_passage=(before_passage, after_passage),
            passage_start=encode(before_passage + after_passage),
            uncounted=self.uncounted_before * len(before) + self.uncounted_after * len(after),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Whose logit after the last token is the score, by token or by its text.

    :param relevant: token of the relevant answer.
    :param irrelevant: token whose logit is subtracted, or None.
    """

    relevant: str | int
    irrelevant: str | int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a pair becomes a logit.

    :param name: of a catalog's recipe, or of what was read.
    :param family: encoder, decoder, bidirectional, layerwise or lightweight.
    :param proof: what proves it.
    :param template: texts around a pair; None: the tokenizer's own template for pairs.
    :param prompt: text before an encoder's query, where the model was saved with one.
    :param answer: of a decoder; None: its own classifier.
    :param pooling: of an encoder with ``modules``; None: the checkpoint's own classifier.
    :param modules: what follows the pooling.
    :param activation: what ``normalize`` reports of a logit, by torch's class name.
    :param max_length: tokens of a pair that the model was saved with, if it says so.
    :param lowercase: whether texts are put into lower case first.
    :param bos: the first token of a prompt, where neither the tokenizer's files nor its class name
        one.
    :param architectures: model classes that the catalog's recipe is of.
    :param settings: those of ``cutoff_layers`` and compression that it takes.
    """

    name: str
    family: str
    proof: str = ""
    template: PromptTemplate | ChatTemplate | None = None
    prompt: str | None = None
    answer: Answer | None = None
    pooling: Pooling | None = None
    modules: tuple[HeadModule, ...] = ()
    activation: str = "Sigmoid"
    max_length: int | None = None
    lowercase: bool = False
    bos: str | None = None
    architectures: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()

    @property
    def is_layerwise(self) -> bool:
        """Whether the model scores after several layers."""
        return "cutoff_layers" in self.settings

    def module_head(self, device: torch.device) -> Head | None:
        """Pooling and modules on a device; None for the checkpoint's own classifier."""
        if self.pooling is None:
            return None
        modules = tuple(module.load(device) for module in self.modules)
        return Head(self.pooling, modules)

    @property
    def texts(self) -> str:
        """Which texts are read."""
        return "the tokenizer's pair" if self.template is None else str(self.template)

    def described(self) -> Iterator[tuple[str, str]]:
        """The recipe in words, for ``bge-rerank models``."""
        yield "recipe", self.name
        yield "proof", self.proof
        yield "family", self.family
        yield "texts", self.texts
        if self.prompt is not None:
            yield "prompt", repr(self.prompt)
        yield "logit", self._logit()
        yield "normalize", self.activation
        if self.max_length is not None:
            yield "max_length", str(self.max_length)

    def _logit(self) -> str:
        if self.answer is not None:
            minus = "" if self.answer.irrelevant is None else f" − {self.answer.irrelevant!r}"
            return f"of the token {self.answer.relevant!r}{minus}"
        if self.pooling is not None:
            return " → ".join(
                [f"{self.pooling} pooling", *(module.name for module in self.modules)]
            )
        return "head of each layer" if self.is_layerwise else "the classifier's only label"


@dataclass(frozen=True, slots=True)
class Source:
    """What scorers are made of, on whichever device.

    :param config: the caller's settings.
    :param checkpoint: the model's folder and config.
    :param recipe: what makes its logit.
    :param files: its weights.
    :param tokenizer: texts of pairs → sequences.
    :param layers: numbers of layers to score after, ascending.
    """

    config: EngineConfig
    checkpoint: Checkpoint
    recipe: Recipe
    files: WeightFiles
    tokenizer: PairTokenizer
    layers: tuple[int, ...]


def _read(template: dict[str, Any], answer: Sequence[str] = (), **given: Any) -> Recipe:
    """A recipe of the catalog; its ``source`` is for readers."""
    del given["source"]
    for name in ("architectures", "settings"):
        given[name] = frozenset(given.get(name, ()))
    texts = PromptTemplate(**{**template, "after": tuple(template["after"])})
    return Recipe(template=texts, answer=Answer(*answer) if answer else None, **given)


_CATALOG = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
#: the catalog's recipes, for ``recipe=``
RECIPES: Mapping[str, Recipe] = {each["name"]: _read(**each) for each in _CATALOG}
