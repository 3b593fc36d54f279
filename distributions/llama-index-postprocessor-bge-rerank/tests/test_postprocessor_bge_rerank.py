"""What LlamaIndex asks of a postprocessor's package."""

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.bge_rerank import BGERerank


def test_class() -> None:
    assert BaseNodePostprocessor.__name__ in [base.__name__ for base in BGERerank.__mro__]
    assert BGERerank.class_name() == "BGERerank"


def test_the_best_node_comes_first() -> None:
    texts = ["Bread is baked from flour.", "A ship floats because it displaces water."]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]

    [kept] = BGERerank("tiny", top_n=1).postprocess_nodes(nodes, query_str="why do ships float?")

    assert kept.node.get_content() == texts[1]
