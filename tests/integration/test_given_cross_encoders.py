"""Cross-encoders of other packages, given to an integration as ``reranker=``."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import pytest
import torch
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError
from sentence_transformers import CrossEncoder

from bge_rerank_integrations import RerankEngine, langchain, llama_index
from bge_rerank_integrations.errors import InputError, NonFiniteScoreError, ScoringError

QUERY = "how do ships float"
TEXTS = ["bread and butter", "ships float on water", "how do ships float", "a ship"]


class WordsShared(BaseCrossEncoder):
    """Counts the words that a text shares with the query."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        self.threads.append(threading.get_ident())
        return [float(len({*query.split()} & {*text.split()})) for query, text in text_pairs]


@pytest.fixture(scope="module")
def peer(xlmr: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CrossEncoder(xlmr, device="cpu")


def test_a_cross_encoder_of_sentence_transformers_ranks(peer: Any, xlmr: str) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    reranker = llama_index.BGERerank(reranker=peer, top_n=None)

    kept = reranker.postprocess_nodes(nodes, query_str=QUERY)

    with RerankEngine.shared(xlmr, dtype="float32", device="cpu") as engine:
        ranking = engine.rerank(QUERY, TEXTS)
    assert reranker.model == xlmr
    assert [node.node.get_content() for node in kept] == [TEXTS[found.index] for found in ranking]
    assert [node.score for node in kept] == pytest.approx(
        [found.score for found in ranking], abs=1e-5
    )
    assert copy.deepcopy(reranker).reranker is peer


def test_high_logits_stay_apart(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = torch.tensor([25.4, 26.2])
    monkeypatch.setattr(peer, "predict", lambda pairs, **options: answer)
    compressor = langchain.BGERerank(reranker=peer)

    found = compressor.rerank(["a", "b"], "q")

    assert [each["index"] for each in found] == [1, 0]
    assert found[0]["relevance_score"] > found[1]["relevance_score"]


async def test_a_cross_encoder_of_langchain_ranks_in_a_thread() -> None:
    encoder = WordsShared()
    compressor = langchain.BGERerank(reranker=encoder, top_n=2)
    documents = [Document(page_content=text) for text in TEXTS]

    kept = await compressor.acompress_documents(documents, QUERY)

    assert [(each.page_content, each.metadata["relevance_score"]) for each in kept] == [
        ("how do ships float", 4.0),
        ("ships float on water", 2.0),
    ]
    assert compressor.compress_documents(documents, QUERY) == kept
    assert encoder.threads[0] != threading.get_ident() == encoder.threads[1]
    assert compressor.model == "WordsShared"
    assert langchain.BGECrossEncoder(reranker=encoder).score([("a b", "b")]) == [1.0]


def test_what_it_is_given_is_checked() -> None:
    compressor = langchain.BGERerank(reranker=WordsShared())

    with pytest.raises(InputError, match="query must be a string"):
        compressor.rerank(["a"], 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="document 1 must be a string"):
        compressor.rerank(["a", None], "q")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("scores", "error"), [([1.0, float("nan")], NonFiniteScoreError), ([1.0], ScoringError)]
)
def test_what_it_answers_is_checked(scores: list[float], error: type[Exception]) -> None:
    class Wrong(WordsShared):
        def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
            return scores

    with pytest.raises(error, match=r"document 1|1 scores for 2 pairs"):
        langchain.BGERerank(reranker=Wrong()).rerank(["a", "b"], "q")


def test_a_classifier_of_several_labels_is_no_reranker(peer: Any) -> None:
    several = copy.copy(peer)
    several.config.num_labels = 2
    try:
        with pytest.raises(ValidationError, match="reranker must have one label, it has 2"):
            langchain.BGERerank(reranker=several)
    finally:
        several.config.num_labels = 1
