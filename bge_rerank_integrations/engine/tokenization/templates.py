"""What decoder rerankers are asked, as data: one template a family of checkpoints.

A pair reads ``before · query · separator · passage · after``, each part tokenized by itself. Cuts
between parts stand where a tokenizer cuts anyway, so that the ids equal those of the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The texts round a pair, and the answer that is looked for.

    ``{prompt}``, ``{query}`` and ``{passage}`` stand for the instruction and the caller's texts.

    :param query: the query's part; cut at ``query_max_length``.
    :param passage: the passage's part; cut to what ``max_length`` leaves.
    :param separator: between the two; counts as the passage's.
    :param after: what follows the pair, tokenized text by text.
    :param prompt: the instruction where the caller gives none.
    :param prompted_query: takes the place of ``query`` where the caller gives an instruction.
    :param answer: token of the relevant answer.
    :param counter_answer: token whose logit is subtracted, or None.
    :param before: what precedes the pair.
    :param has_bos: whether the tokenizer's first token, where it has one, precedes everything.
    :param uncounted_before: how often the tokens before the pair are granted beyond ``max_length``.
    :param uncounted_after: the same for the tokens after it.
    """

    query: str
    passage: str
    separator: str
    after: tuple[str, ...]
    answer: str
    counter_answer: str | None = None
    prompt: str = ""
    prompted_query: str | None = None
    before: str = ""
    has_bos: bool = False
    uncounted_before: int = 0
    uncounted_after: int = 0


def _bge(prompt: str) -> PromptTemplate:
    # FlagEmbedding, inference/reranker/decoder_only/base.py: the pair is cut at max_length plus
    # separator and prompt, then separator and prompt are appended
    return PromptTemplate(
        query="A: {query}",
        passage="B: {passage}",
        separator="\n",
        after=("\n", "{prompt}"),
        prompt=prompt,
        answer="Yes",
        has_bos=True,
        uncounted_after=2,
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
        "<|im_start|>user\n<Instruct>: {prompt}\n<Query>:"
    ),
    query=" {query}\n",
    separator="<Document>:",
    passage=" {passage}",
    after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    prompt="Given a web search query, retrieve relevant passages that answer the query",
    answer="yes",
    counter_answer="no",
)

# mxbai-rerank (Apache 2.0), mxbai_rerank/mxbai_rerank_v2.py; the pair is cut at max_length
MXBAI_V2 = PromptTemplate(
    before=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    ),
    query="query: {query}",
    prompted_query="instruction: {prompt}\nquery: {query}",
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
    answer="1",
    counter_answer="0",
    uncounted_before=1,
    uncounted_after=1,
)
