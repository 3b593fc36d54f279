"""LlamaIndex integration: a node postprocessor."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bge_rerank_integrations.errors import MissingExtraError

try:
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
    from llama_index.core.instrumentation.events.exception import ExceptionEvent
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
except ModuleNotFoundError as error:
    if error.name in ("llama_index", "llama_index.core"):
        raise MissingExtraError("llama-index") from error
    raise

from pydantic import Field

from bge_rerank_integrations.context.selection import Kept
from bge_rerank_integrations.rerank_settings import RerankSettings

RETRIEVAL_SCORE = "retrieval_score"

dispatcher = get_dispatcher(__name__)


class BGERerank(RerankSettings, BaseNodePostprocessor):
    """Reranks retrieved nodes with a BGE cross-encoder.

    Takes every setting of :class:`~bge_rerank_integrations.rerank_settings.RerankSettings` and::

        index.as_query_engine(similarity_top_k=100, node_postprocessors=[BGERerank(top_n=3)])

    The nodes given are left as they are: new ``NodeWithScore`` objects come back, best first. With
    ``prune``, a node whose text is cut is a copy with the same id and relationships; its metadata
    is neither split nor scored. A node without text, such as an image, is not scored: it keeps its
    place, with None for a score.
    Where ``on_error="keep"`` answers a call that failed, the nodes keep their retrieval scores,
    unless only pruning failed: then they are ranked, and whole. An ``ExceptionEvent`` and the end
    of the callback event carry the error.

    :param keep_retrieval_score: put the score that a node came with in its
        ``metadata["retrieval_score"]`` (on a copy of the node), hidden from embedders and LLMs.
    :param metadata_mode: which of a node's metadata the reranker reads with its text.
    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    keep_retrieval_score: bool = Field(
        default=False, description="Keep the retrieval score in metadata['retrieval_score']."
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Metadata that the reranker reads with the text."
    )

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized components."""
        return "BGERerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | str | None = None
    ) -> list[NodeWithScore]:
        query = _query_text(query_bundle)
        if not nodes:
            return []
        with self._reported(query, nodes) as kept:
            best = self._best(query, _own_texts(nodes), self._texts(nodes))
            kept.extend(self._ranked(nodes, best))
            kept[:] = _with_texts(kept, self._pruned(query, _own_texts(kept)))
        return kept

    # the base class makes spans for its abstract methods only, which this is not
    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | str | None = None
    ) -> list[NodeWithScore]:
        query = _query_text(query_bundle)
        if not nodes:
            return []
        with self._reported(query, nodes) as kept:
            best = await self._abest(query, _own_texts(nodes), self._texts(nodes))
            kept.extend(self._ranked(nodes, best))
            kept[:] = _with_texts(kept, await self._apruned(query, _own_texts(kept)))
        return kept

    def _texts(self, nodes: Sequence[NodeWithScore]) -> list[str]:
        return [scored.node.get_content(metadata_mode=self.metadata_mode) for scored in nodes]

    def _ranked(self, nodes: Sequence[NodeWithScore], best: Sequence[Kept]) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._kept_node(nodes[it.index]), score=it.score) for it in best]

    def _as_retrieved(self, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=self._kept_node(scored), score=scored.score)
            for scored in nodes[: self.top_n]
        ]

    def _kept_node(self, scored: NodeWithScore) -> BaseNode:
        return _with_retrieval_score(scored) if self.keep_retrieval_score else scored.node

    @contextmanager
    def _reported(self, query: str, nodes: list[NodeWithScore]) -> Iterator[list[NodeWithScore]]:
        """Tell instrumentation and callbacks that reranking starts and, whatever happens, ends.

        :returns: the list to put the kept nodes in, ranked ones before they are pruned: what it
            holds at the end, or when pruning fails, is reported.
        """
        model_name = self._reranker.model
        # the event's top_n must be an int
        top_n = len(nodes) if self.top_n is None else self.top_n
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model_name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        kept: list[NodeWithScore] = []
        answered: list[NodeWithScore] = []
        dispatcher.event(
            ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model_name)
        )
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield kept
                event.on_end(payload={EventPayload.NODES: kept})
            answered = kept
        except Exception as error:
            if not self._goes_on_after(error, is_ranked=bool(kept)):
                raise
            dispatcher.event(ExceptionEvent(exception=error))
            kept[:] = kept or self._as_retrieved(nodes)
            answered = kept
        finally:
            dispatcher.event(ReRankEndEvent(nodes=answered))

    def __getstate__(self) -> dict[str, Any]:
        # the base class drops what it cannot pickle, and a default model would take its place:
        # let the reranker's own error out first
        pickle.dumps(self.reranker)
        return super().__getstate__()


def _query_text(query_bundle: QueryBundle | str | None) -> str:
    if query_bundle is None:
        raise ValueError("Missing query bundle in extra info.")
    return query_bundle if isinstance(query_bundle, str) else query_bundle.query_str


def _own_texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    """The texts of the nodes without their metadata, empty where there is none."""
    return [scored.node.get_content(metadata_mode=MetadataMode.NONE) for scored in nodes]


def _with_texts(nodes: Sequence[NodeWithScore], texts: Sequence[str]) -> list[NodeWithScore]:
    return [
        scored
        if text == own
        else NodeWithScore(node=_with_text(scored.node, text), score=scored.score)
        for scored, own, text in zip(nodes, _own_texts(nodes), texts, strict=True)
    ]


def _with_text(node: BaseNode, text: str) -> BaseNode:
    copied = node.model_copy()
    copied.set_content(text)
    return copied


def _with_retrieval_score(scored: NodeWithScore) -> BaseNode:
    node = scored.node
    return node.model_copy(
        update={
            "metadata": {**node.metadata, RETRIEVAL_SCORE: scored.score},
            "excluded_embed_metadata_keys": _including(node.excluded_embed_metadata_keys),
            "excluded_llm_metadata_keys": _including(node.excluded_llm_metadata_keys),
        }
    )


def _including(keys: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*keys, RETRIEVAL_SCORE]))
