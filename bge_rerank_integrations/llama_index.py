"""LlamaIndex integration: a node postprocessor."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import MissingExtraError

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

from .adapter_fields import RerankFields, sync_override
from .context.selection import Kept
from .inputs import check_items
from .pipeline import Candidate, Pipeline, Selected

dispatcher = get_dispatcher(__name__)


class BGERerank(RerankFields, BaseNodePostprocessor):
    """Reranks retrieved nodes with a BGE cross-encoder.

    Takes every setting of :class:`~bge_rerank_integrations.adapter_fields.RerankFields` and::

        index.as_query_engine(similarity_top_k=100, node_postprocessors=[BGERerank(top_n=3)])

    The nodes given are left as they are: new ``NodeWithScore`` objects come back, best first. With
    ``prune``, a node whose text is cut is a copy with the same id and relationships; its metadata
    is neither split nor scored. A node that the model did not read to its end has
    ``metadata["truncated"]``, on a copy too. A node without text, such as an image, is not scored:
    it keeps its place, with None for a score, and such nodes take at most half of the ``top_n``
    places, unless there are fewer texts.
    Where ``on_error="keep"`` answers a call that failed, the nodes keep their retrieval scores,
    unless only pruning failed: then they are ranked, and whole. An ``ExceptionEvent`` and the end
    of the callback event carry the error.

    With ``keep_retrieval_score``, ``metadata["retrieval_score"]`` and ``["retrieval_rank"]`` of a
    copy are hidden from embedders and LLMs. The source of ``per_source`` is a node's
    ``ref_doc_id``; ``max_context_tokens`` counts the metadata that the LLM reads, too.

    :param metadata_mode: which of a node's metadata the reranker reads with its text.
    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded; with ``lazy``, by the first call.
    """

    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Metadata that the reranker reads with the text."
    )

    _depth_setting = "similarity_top_k"

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized components."""
        return "BGERerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | str | None = None
    ) -> list[NodeWithScore]:
        query, given = _query_text(query_bundle), _given(nodes)
        if not given:
            return []
        pipeline = self._pipeline()
        with self._reported(pipeline, query, given) as report:
            return report(pipeline.run(query, self._candidates(given)))

    # the base class makes spans for its abstract methods only, which this is not
    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | str | None = None
    ) -> list[NodeWithScore]:
        query, given = _query_text(query_bundle), _given(nodes)
        if not given:
            return []
        sync, native = BGERerank._postprocess_nodes, BGERerank._apostprocess_nodes
        if own := sync_override(self, sync, native):
            return await asyncio.to_thread(own, given, query_bundle)
        pipeline = await self._apipeline()
        with self._reported(pipeline, query, given) as report:
            return report(await pipeline.arun(query, self._candidates(given)))

    def _candidates(self, nodes: Iterable[NodeWithScore]) -> list[Candidate]:
        return [
            Candidate(
                it.node.get_content(MetadataMode.NONE),
                it.node.get_content(self.metadata_mode),
                _metadata_of_llm(it.node) if self.max_context_tokens else "",
                it.node.ref_doc_id,
                it.score,
            )
            for it in nodes
        ]

    @contextmanager
    def _reported(
        self, pipeline: Pipeline, query: str, nodes: list[NodeWithScore]
    ) -> Iterator[Callable[[Selected], list[NodeWithScore]]]:
        """Tell instrumentation and callbacks that reranking starts and, whatever happens, ends.

        :returns: what makes nodes of the documents that are kept, and tells of them.
        """
        model, top_n = pipeline.reranker.model, pipeline.options.top_n
        # the event's top_n must be an int
        top_n = len(nodes) if top_n is None else top_n
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        answered: list[NodeWithScore] = []
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:

                def report(selected: Selected) -> list[NodeWithScore]:
                    answered.extend(self._kept(nodes, selected))
                    if selected.error is None:
                        event.on_end(payload={EventPayload.NODES: answered})
                    else:
                        dispatcher.event(ExceptionEvent(exception=selected.error))
                        event.on_end(payload={EventPayload.EXCEPTION: selected.error})
                    return answered

                yield report
        finally:
            dispatcher.event(ReRankEndEvent(nodes=answered))

    def _kept(self, nodes: Sequence[NodeWithScore], selected: Selected) -> list[NodeWithScore]:
        # where nothing was ranked, the retrieval scores stay
        is_ranked = selected.error is None or any(it.score is not None for it in selected)
        return [
            NodeWithScore(
                node=self._kept_node(nodes[it.index], it),
                score=it.score if is_ranked else nodes[it.index].score,
            )
            for it in selected
        ]

    def _kept_node(self, scored: NodeWithScore, kept: Kept) -> BaseNode:
        """The node given, or a copy where its text or metadata are others."""
        node = scored.node
        is_number = scored.score is not None and math.isfinite(scored.score)
        if told := self._told(kept, node.metadata, scored.score if is_number else None):
            hidden = node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys
            embed, llm = (list(dict.fromkeys([*keys, *told])) for keys in hidden)
            node = node.model_copy(
                update={
                    "metadata": {**node.metadata, **told},
                    "excluded_embed_metadata_keys": embed,
                    "excluded_llm_metadata_keys": llm,
                }
            )
        if kept.text != node.get_content(metadata_mode=MetadataMode.NONE):
            node = node.model_copy()
            node.set_content(kept.text)
        return node

    def __getstate__(self) -> dict[str, Any]:
        # the base class drops what it cannot pickle, and a default model would take its place:
        # let the reranker's own error out first
        pickle.dumps(self.reranker)
        return super().__getstate__()


def _given(nodes: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    return check_items(
        nodes, "nodes", NodeWithScore, {BaseNode: ": NodeWithScore(node=...) takes a node"}
    )


def _metadata_of_llm(node: BaseNode) -> str:
    metadata = node.get_metadata_str(MetadataMode.LLM)
    return f"{metadata}\n\n" if metadata else ""


def _query_text(query_bundle: QueryBundle | str | None) -> str:
    if query_bundle is None:
        raise ValueError("Missing query bundle in extra info.")
    return query_bundle if isinstance(query_bundle, str) else query_bundle.query_str
