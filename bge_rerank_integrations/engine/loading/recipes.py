"""How a pair becomes a logit: the recipe of a checkpoint, and those of the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bge_rerank_integrations.engine.loading.head_modules import HeadModule
from bge_rerank_integrations.engine.scorers.heads import Pooling
from bge_rerank_integrations.engine.tokenization.chat import ChatTemplate
from bge_rerank_integrations.engine.tokenization.templates import PromptTemplate

# whose layers take packed attention as their own: no window, cap or scale that it would not see
PACKED_DECODERS = ("gemma", "llama", "mistral", "qwen2", "qwen3")
LAYER_SETTINGS = ("cutoff_layers", "compress_ratio", "compress_layers")


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
            return " → ".join([f"{self.pooling} pooling", *map(str, self.modules)])
        return "head of each layer" if self.is_layerwise else "the classifier's only label"


def _bge_prompt(instruction: str) -> PromptTemplate:
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


BGE = _bge_prompt(
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)
BGE_LIGHTWEIGHT = _bge_prompt("Predict whether passage B contains an answer to query A.")

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


def _decoder(template: PromptTemplate, answer: Answer, kind: str, bos: str | None = None) -> Recipe:
    # a conversion into a classifier reads the same texts
    classes = frozenset({f"{kind}ForCausalLM", f"{kind}ForSequenceClassification"})
    return Recipe("", "decoder", template=template, answer=answer, architectures=classes, bos=bos)


_RECIPES: Mapping[str, Recipe] = {
    "bge-reranker-v2-gemma": _decoder(BGE, Answer("Yes"), "Gemma", "<bos>"),
    "bge-reranker-v2-minicpm-layerwise": Recipe(
        "",
        "layerwise",
        template=BGE,
        bos="<s>",
        architectures=frozenset({"LayerWiseMiniCPMForCausalLM"}),
        settings=frozenset({"cutoff_layers"}),
    ),
    "bge-reranker-v2.5-gemma2-lightweight": Recipe(
        "",
        "lightweight",
        template=BGE_LIGHTWEIGHT,
        bos="<bos>",
        architectures=frozenset({"CostWiseGemmaForCausalLM"}),
        settings=frozenset(LAYER_SETTINGS),
    ),
    "qwen3-reranker": _decoder(QWEN3, Answer("yes", "no"), "Qwen3"),
    "nemotron-rerank": Recipe(
        "",
        "bidirectional",
        template=NEMOTRON,
        architectures=frozenset({"LlamaBidirectionalForSequenceClassification"}),
    ),
    "mxbai-rerank-v2": _decoder(MXBAI_V2, Answer("1", "0"), "Qwen2"),
}
#: the catalog's recipes, for ``recipe=``
RECIPES = {name: replace(recipe, name=name) for name, recipe in _RECIPES.items()}
