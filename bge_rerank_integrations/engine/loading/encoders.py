"""``*ForSequenceClassification`` of one label → a scorer."""

from __future__ import annotations

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.load_request import LoadRequest
from bge_rerank_integrations.engine.loading.weights import Weights
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.encoder import EncoderScorer
from bge_rerank_integrations.engine.scorers.encoder_shape import (
    MODEL_TYPES,
    EncoderShape,
    is_packable,
)
from bge_rerank_integrations.engine.scorers.parameters import Parameters
from bge_rerank_integrations.engine.tokenization.pairs import PairTemplate
from bge_rerank_integrations.errors import UnsupportedModelError


def make_encoder(request: LoadRequest) -> Scorer:
    """Packed where the architecture is known, else transformers' own class on padded batches.

    :raises UnsupportedModelError: if it has more labels than one, or relative positions.
    """
    checkpoint = request.checkpoint
    _check(checkpoint)
    if not is_packable(checkpoint.config):
        # transformers' model classes take seconds to import
        from bge_rerank_integrations.engine.loading.stock import make_padded

        return make_padded(request)
    return EncoderScorer(
        Parameters(Weights(checkpoint.folder), request.device, request.dtype),
        EncoderShape.of(checkpoint.config),
        PairTemplate.of(request.tokenizer).passage_type,
    )


def _check(checkpoint: Checkpoint) -> None:
    name, config = checkpoint.folder.name, checkpoint.config
    # as transformers counts: those that have a name, else the number given, else 2
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels", 2))
    if labels != 1:
        raise UnsupportedModelError(f"{name} classifies into {labels} labels; a reranker has one")
    # transformers 5 would read such a model as if its positions were absolute
    positions = config.get("position_embedding_type", "absolute")
    if checkpoint.model_type in MODEL_TYPES and positions != "absolute":
        raise UnsupportedModelError(f"{name} has positions of type {positions!r}, not 'absolute'")
