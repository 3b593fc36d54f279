"""What stands around a pair: special tokens of an encoder, or the texts of a decoder's prompt.

A prompt reads ``before · query · separator · passage · after``, each part tokenized by itself. Cuts
between parts stand where a tokenizer cuts anyway, so that the ids equal those of the whole text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.tokenization.token_cache import TokenIds, to_ids
from bge_rerank_integrations.errors import ConfigurationError, UnsupportedModelError

Encode = Callable[[str], TokenIds]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What stands around the two texts of a pair.

    :param before: ids before the query's part.
    :param between: ids between query and passage.
    :param after: ids after the passage's part.
    :param around_query: texts right before and after the query, tokenized with it.
    :param around_passage: texts right before and after the document, tokenized with it.
    :param passage_start: ids that every window of a passage begins with.
    :param uncounted: tokens granted beyond ``max_length``.
    :param cuts_whole_part: whether a tokenizer that cuts on the left cuts what stands before the
        document too, from ``between`` on.
    """

    before: TokenIds
    between: TokenIds
    after: TokenIds
    around_query: tuple[str, str] = ("", "")
    around_passage: tuple[str, str] = ("", "")
    passage_start: TokenIds = field(default_factory=lambda: to_ids(()))
    uncounted: int = 0
    cuts_whole_part: bool = False


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

    def frame(self, instruction: str | None, _: Encode) -> Frame:
        """The ids around a pair, and the prompt before its query.

        :raises ConfigurationError: for an instruction to a model without a prompt.
        """
        if instruction is not None and self.prompt is None:
            raise ConfigurationError(
                "instruction must be None for a model that reads query and document alone, got "
                f"{instruction!r}"
            )
        prompt = (self.prompt or "") if instruction is None else instruction
        return Frame(
            to_ids(self.before),
            to_ids(self.between),
            to_ids(self.after),
            around_query=(prompt, ""),
        )


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
    :param cuts_whole_part: see :class:`Frame`.
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

    def __str__(self) -> str:
        return repr("".join([self.before, self.query, self.separator, self.passage, *self.after]))

    def frame(self, instruction: str | None, encode: Encode) -> Frame:
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
            cuts_whole_part=self.cuts_whole_part,
        )


def _bge(instruction: str) -> PromptTemplate:
    # FlagEmbedding, inference/reranker/decoder_only/base.py: the pair is cut at max_length plus
    # separator and prompt, then separator and prompt are appended
    return PromptTemplate(
        query="A: {query}",
        passage="B: {passage}",
        separator="\n",
        after=("\n", "{instruction}"),
        instruction=instruction,
        has_bos=True,
        uncounted_after=2,
        cuts_whole_part=True,
    )


BGE = _bge(
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)
BGE_LIGHTWEIGHT = _bge("Predict whether passage B contains an answer to query A.")

# Qwen3-Reranker's model card; the whole is cut at max_length
QWEN3 = PromptTemplate(
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: {instruction}\n<Query>:"
    ),
    query=" {query}\n",
    separator="<Document>:",
    passage=" {passage}",
    after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)

# llama-nemotron-rerank's model card and vLLM's nemotron-rerank.jinja. Spaces and line breaks are
# tokenized with the query, so that the cut stands before " passage", where a tokenizer cuts anyway.
NEMOTRON = PromptTemplate(
    query="question:{query} \n \n",
    separator="",
    passage=" passage:{passage}",
    after=("",),
    has_bos=True,
)

# mxbai-rerank (Apache 2.0), mxbai_rerank/mxbai_rerank_v2.py; the pair is cut at max_length
MXBAI_V2 = PromptTemplate(
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    ),
    query="query: {query}",
    instructed_query="instruction: {instruction}\nquery: {query}",
    separator="\n",
    passage="document: {passage}",
    after=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    uncounted_before=1,
    uncounted_after=1,
)
