"""Clients that others wrote, against a server on a socket; docs/clients.md says their base URLs.

A library that is not installed is skipped: those for Python are in the extra ``clients``, and those
for JavaScript in the folder that ``BGE_RERANK_NPM_CLIENTS`` names. Their bytes, and those of
programs that are no libraries, are sent in ``test_client_bytes.py``, which needs none of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from serving.conftest import probability
from serving.fake_engine import FakeEngine, logit_of
from serving.live import live_server

# what these libraries warn of is not this project's
pytestmark = [pytest.mark.enable_socket, pytest.mark.filterwarnings("ignore")]

PAGE = ROOT / "docs" / "clients.md"
ROWS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| `http://localhost:8787([^`]*)` \|$",
    PAGE.read_text("utf-8"),
    re.MULTILINE,
)

QUERY = "what is a panda"
DOCUMENTS = ["no word of it", "a panda is a bear", "what a panda is", "is it"]
LOGITS = [logit_of(QUERY, document) for document in DOCUMENTS]
# of the three best
BEST = [2, 1, 3]
# clients that find the scores of their documents by position
ALL = [0, 1, 2, 3]
KEY = "the-key"
# LiteLLM asks Fireworks for fireworks/fake; LibreChat and mem0's Bailian know these names only
NAMES = ("fake", "fireworks/fake", "jina-reranker-v2-base-multilingual", "qwen3-rerank")

# index and score of each document, in the client's order
Ranked = Sequence[tuple[int, float]]
Call = Callable[[str], Ranked]
CLIENTS: dict[str, tuple[Call, list[int], Callable[[float], float]]] = {}


def client(
    name: str, order: list[int] = BEST, score: Callable[[float], float] = probability
) -> Callable[[Call], Call]:
    """Name a call of a client as the page does; it gets the client's base URL.

    :param order: the documents of its answer.
    :param score: of its answer, from a logit.
    """

    def add(call: Call) -> Call:
        CLIENTS[name] = call, order, score
        return call

    return add


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live_server(dict.fromkeys(NAMES, FakeEngine())) as url:
        yield url


LIBRARIES = [(name, path) for name, path in ROWS if "(*request*)" not in name]


def test_every_library_of_the_page_is_tried() -> None:
    assert {name for name, _ in LIBRARIES} == set(CLIENTS)


@pytest.mark.parametrize(("name", "path"), LIBRARIES)
def test_a_client_gets_the_engines_ranking(
    url: str, monkeypatch: pytest.MonkeyPatch, name: str, path: str
) -> None:
    # or it asks the network for prices
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    call, order, score = CLIENTS[name]
    ranked = call(url + path)
    assert [index for index, _ in ranked] == order
    scores = [score(LOGITS[index]) for index in order]
    assert [score for _, score in ranked] == pytest.approx(scores, abs=1e-6)


def logit(value: float) -> float:
    return value


def litellm(provider: str, order: list[int] = BEST, score: Any = probability) -> None:
    @client(f"LiteLLM `{provider}/`", order, score)
    def call(url: str) -> Ranked:
        library = pytest.importorskip("litellm")
        answer = library.rerank(
            f"{provider}/fake", QUERY, DOCUMENTS, top_n=3, api_base=url, api_key=KEY
        )
        return [(result["index"], result["relevance_score"]) for result in answer.results]


litellm("cohere")
litellm("jina_ai")
litellm("voyage")
litellm("infinity")
litellm("hosted_vllm")
litellm("huggingface")
litellm("nvidia_nim", BEST, logit)
litellm("nvidia_nim/ranking", BEST, logit)
litellm("azure_ai")
litellm("fireworks_ai")
litellm("dashscope")
litellm("deepinfra", ALL)


@client("cohere `Client` (v1)")
def cohere_v1(url: str) -> Ranked:
    cohere = pytest.importorskip("cohere")
    asked = cohere.Client(KEY, base_url=url)
    answer = asked.rerank(model="fake", query=QUERY, documents=DOCUMENTS, top_n=3)
    return [(result.index, result.relevance_score) for result in answer.results]


@client("cohere `ClientV2`")
def cohere_v2(url: str) -> Ranked:
    cohere = pytest.importorskip("cohere")
    asked = cohere.ClientV2(KEY, base_url=url)
    answer = asked.rerank(model="fake", query=QUERY, documents=DOCUMENTS, top_n=3)
    return [(result.index, result.relevance_score) for result in answer.results]


@client("voyageai, at the root")
@client("voyageai")
def voyage(url: str) -> Ranked:
    voyageai = pytest.importorskip("voyageai")
    asked = voyageai.Client(KEY, base_url=url)
    answer = asked.rerank(QUERY, DOCUMENTS, "fake", top_k=3)
    return [(result.index, result.relevance_score) for result in answer.results]


@client("mixedbread")
def mixedbread(url: str) -> Ranked:
    library = pytest.importorskip("mixedbread")
    asked = library.Mixedbread(api_key=KEY, base_url=url)
    answer = asked.rerank(model="fake", query=QUERY, input=DOCUMENTS, top_k=3)
    return [(result.index, result.score) for result in answer.data]


@client("dashscope")
def dashscope(url: str) -> Ranked:
    library = pytest.importorskip("dashscope")
    library.base_http_api_url = url
    answer = library.TextReRank.call("fake", QUERY, DOCUMENTS, top_n=3, api_key=KEY)
    return [(result.index, result.relevance_score) for result in answer.output.results]


@client("infinity_client")
def infinity(url: str) -> Ranked:
    infinity_client = pytest.importorskip("infinity_client")
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(model="fake", query=QUERY, documents=DOCUMENTS, top_n=3)
    answer = rerank.sync(client=infinity_client.Client(base_url=url), body=body)
    return [(result.index, result.relevance_score) for result in answer.results]


def rerankers(provider: str) -> None:
    @client(f"rerankers `{provider}`", [*BEST, 0])
    def call(url: str) -> Ranked:
        pytest.importorskip("rerankers")
        from rerankers.models.api_rankers import APIRanker

        ranked = APIRanker("fake", KEY, provider, verbose=0, url=url).rank(QUERY, DOCUMENTS)
        return [(result.doc_id, result.score) for result in ranked.results]


rerankers("cohere")
rerankers("jina")
rerankers("voyage")
rerankers("mixedbread.ai")
rerankers("text-embeddings-inference")


def haystack(ranker: Any) -> Ranked:
    from haystack import Document

    documents = [Document(id=str(index), content=text) for index, text in enumerate(DOCUMENTS)]
    kept = ranker.run(query=QUERY, documents=documents, top_k=3)["documents"]
    return [(int(document.id), document.score) for document in kept]


def secret() -> Any:
    from haystack.utils import Secret

    return Secret.from_token(KEY)


@client("Haystack `CohereRanker`")
def haystack_cohere(url: str) -> Ranked:
    library = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    return haystack(library.CohereRanker(model="fake", api_key=secret(), api_base_url=url))


@client("Haystack `JinaRanker`")
def haystack_jina(url: str) -> Ranked:
    library = pytest.importorskip("haystack_integrations.components.rankers.jina")
    return haystack(library.JinaRanker(model="fake", api_key=secret(), base_url=url))


@client("Haystack `NvidiaRanker`", score=logit)
def haystack_nvidia(url: str) -> Ranked:
    library = pytest.importorskip("haystack_integrations.components.rankers.nvidia")
    return haystack(library.NvidiaRanker("fake", api_key=secret(), api_url=url))


def langchain(compressor: Any) -> Ranked:
    from langchain_core.documents import Document

    documents = [
        Document(page_content=text, metadata={"place": index})
        for index, text in enumerate(DOCUMENTS)
    ]
    kept = compressor.compress_documents(documents, QUERY)
    return [(document.metadata["place"], document.metadata["relevance_score"]) for document in kept]


@client("LangChain `CohereRerank`")
def langchain_cohere(url: str) -> Ranked:
    library = pytest.importorskip("langchain_cohere")
    return langchain(library.CohereRerank(cohere_api_key=KEY, model="fake", top_n=3, base_url=url))


@client("LangChain `VoyageAIRerank`")
def langchain_voyage(url: str) -> Ranked:
    library = pytest.importorskip("langchain_voyageai")
    return langchain(library.VoyageAIRerank(api_key=KEY, model="fake", top_k=3, base_url=url))


@client("LangChain `NVIDIARerank`", score=logit)
def langchain_nvidia(url: str) -> Ranked:
    library = pytest.importorskip("langchain_nvidia_ai_endpoints")
    return langchain(library.NVIDIARerank(base_url=url, api_key=KEY, top_n=3))


@client("LangChain `InfinityRerank`")
def langchain_infinity(url: str) -> Ranked:
    pytest.importorskip("infinity_client")
    library = pytest.importorskip("langchain_community.document_compressors.infinity_rerank")
    from infinity_client import Client

    return langchain(library.InfinityRerank(client=Client(base_url=url), model="fake", top_n=3))


@client("LangChain `JinaRerank`")
def langchain_jina(url: str) -> Ranked:
    library = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "JINA_API_URL", url)
        return langchain(library.JinaRerank(jina_api_key=KEY, model="fake", top_n=3))


def llama_index(postprocessor: Any) -> Ranked:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [
        NodeWithScore(node=TextNode(id_=str(index), text=text))
        for index, text in enumerate(DOCUMENTS)
    ]
    kept = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    return [(int(node.node_id), node.score) for node in kept]


@client("LlamaIndex `CohereRerank`")
def llama_index_cohere(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    return llama_index(library.CohereRerank(top_n=3, model="fake", api_key=KEY, base_url=url))


@client("LlamaIndex `JinaRerank`")
def llama_index_jina(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    return llama_index(library.JinaRerank(top_n=3, model="fake", api_key=KEY, base_url=url))


@client("LlamaIndex `TextEmbeddingInference`")
def llama_index_tei(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    return llama_index(library.TextEmbeddingInference(top_n=3, base_url=url))


@client("LlamaIndex `NVIDIARerank`", score=logit)
def llama_index_nvidia(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.nvidia_rerank")
    return llama_index(library.NVIDIARerank(top_n=3, base_url=url, api_key=KEY))


@client("LlamaIndex `SiliconFlowRerank`")
def llama_index_siliconflow(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.siliconflow_rerank")
    return llama_index(library.SiliconFlowRerank(top_n=3, model="fake", base_url=url, api_key=KEY))


@client("LlamaIndex `XinferenceRerank`")
def llama_index_xinference(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.xinference_rerank")
    return llama_index(library.XinferenceRerank(top_n=3, model="fake", base_url=url))


@client("LlamaIndex `ContextualRerank`")
def llama_index_contextual(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.contextual_rerank")
    from contextual import ContextualAI

    asked = ContextualAI(api_key=KEY, base_url=url)
    return llama_index(library.ContextualRerank(top_n=3, model="fake", api_key=KEY, client=asked))


@client("LlamaIndex `DashScopeRerank`")
def llama_index_dashscope(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.dashscope_rerank")
    import dashscope

    dashscope.base_http_api_url = url
    return llama_index(library.DashScopeRerank(top_n=3, model="fake", api_key=KEY))


@client("LlamaIndex `MixedbreadAIRerank`")
def llama_index_mixedbread(url: str) -> Ranked:
    library = pytest.importorskip("llama_index.postprocessor.mixedbreadai_rerank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXEDBREAD_BASE_URL", url)
        return llama_index(library.MixedbreadAIRerank(top_n=3, model="fake", api_key=KEY))


def npm(name: str, order: list[int] = BEST) -> None:
    @client(name, order)
    def call(url: str) -> Ranked:
        folder = os.environ.get("BGE_RERANK_NPM_CLIENTS")
        if folder is None:
            pytest.skip("BGE_RERANK_NPM_CLIENTS names no folder with the libraries")
        command = ["node", str(Path(__file__).with_name("npm_clients.mjs")), name, url]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [(index, score) for index, score in json.loads(done.stdout)]


npm("npm `cohere-ai` (v1)")
npm("npm `cohere-ai` (v2)")
npm("npm `voyageai`", [*BEST, 0])
npm("npm `together-ai`")
npm("npm `@mixedbread/sdk`")
npm("npm `openai`")
npm("npm `@ai-sdk/cohere`")
npm("npm `@ai-sdk/togetherai`")
npm("npm `voyage-ai-provider`")
npm("npm `@langchain/cohere`")


@client("openai")
def openai(url: str) -> Ranked:
    library = pytest.importorskip("openai")
    asked = library.OpenAI(api_key=KEY, base_url=url)
    body = {"model": asked.models.retrieve("fake").id, "query": QUERY, "documents": DOCUMENTS}
    answer = asked.post("/rerank", body={**body, "top_n": 3}, cast_to=object)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


@client("xinference-client")
def xinference(url: str) -> Ranked:
    library = pytest.importorskip("xinference_client")
    model = library.RESTfulClient(url, KEY).get_model("fake")
    answer = model.rerank(DOCUMENTS, QUERY, top_n=3, return_documents=True)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]
