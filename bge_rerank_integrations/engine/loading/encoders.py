"""Encoders → scorers: packed where the layers are known, else padded by transformers.

Body and head are made apart, so that a body may get another head than its own class's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bge_rerank_integrations.engine.loading.devices import keep_batch_memory, return_freed_memory
from bge_rerank_integrations.engine.loading.families import LoadRequest
from bge_rerank_integrations.engine.loading.sample_pairs import SAMPLE_PAIRS
from bge_rerank_integrations.engine.scorers import Scorer, bert_config, modernbert_config
from bge_rerank_integrations.engine.scorers.bert import Bert, bert_head
from bge_rerank_integrations.engine.scorers.bert_config import BertConfig
from bge_rerank_integrations.engine.scorers.heads import EncoderBody, EncoderScorer, Head, Pooling
from bge_rerank_integrations.engine.scorers.int8 import Int8Layers
from bge_rerank_integrations.engine.scorers.modernbert import ModernBert, modernbert_head
from bge_rerank_integrations.engine.scorers.modernbert_config import ModernBertConfig
from bge_rerank_integrations.engine.scorers.weights import Weights
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.settings import CallOptions

Config = Mapping[str, Any]


def make_encoder(request: LoadRequest) -> Scorer:
    """A classifier of one label, or a body with the recipe's modules behind it.

    :raises ConfigurationError: for int8 and layers that cannot be packed.
    """
    checkpoint = request.checkpoint
    config = checkpoint.config
    if not is_packable(config):
        if request.config.dtype == "int8":
            raise ConfigurationError(
                "dtype 'int8' is for encoders that run without padding, and "
                f"{checkpoint.folder.name} is of type {checkpoint.model_type!r}"
            )
        # transformers' model classes take seconds to import
        from bge_rerank_integrations.engine.loading.transformers_models import make_padded

        return make_padded(request)
    if request.dtype is torch.int8:
        return _make_int8(request)
    return _make_packed(request, Weights(request.files, request.device, request.dtype))


def _make_int8(request: LoadRequest) -> EncoderScorer:
    """Linear layers in 8 bits, all else in float32."""
    layers = Int8Layers()
    weights = Weights(request.files, request.device, torch.float32, make_linear=layers.make)
    scorer = _make_packed(request, weights)
    tokenizer = PairTokenizer(
        request.tokenizer,
        request.template,
        max_positions=bert_config.max_positions(request.checkpoint.config),
        saved_length=request.recipe.max_length,
        max_cached_tokens=0,
    )
    windows = tokenizer(SAMPLE_PAIRS, tokenizer.layout(CallOptions()))
    scorer.score([sequence for of_pair in windows for sequence in of_pair])
    layers.quantize()
    return_freed_memory()
    keep_batch_memory()
    return scorer


def _make_packed(request: LoadRequest, weights: Weights) -> EncoderScorer:
    config = request.checkpoint.config
    head = request.module_head() or make_head(config, weights)
    body = make_body(
        config,
        weights.module(body_name(config)),
        passage_type=request.passage_type,
        pooling=head.pooling,
    )
    return EncoderScorer(body, head)


def is_packable(config: Config) -> bool:
    """Whether this package knows the model's layers."""
    return bert_config.is_packable(config) or modernbert_config.is_packable(config)


def body_name(config: Config) -> str:
    """The body's module in a packable ``*ForSequenceClassification``."""
    layout = bert_config.MODEL_TYPES.get(config["model_type"])
    return "model" if layout is None else layout.body


def make_body(
    config: Config, weights: Weights, *, passage_type: int, pooling: Pooling
) -> EncoderBody:
    """Embeddings and layers of a packable encoder.

    :param weights: the body's own.
    :param passage_type: token type of the passage.
    :param pooling: the head's.
    :raises ValueError: if ``config.json`` has a value that cannot be.
    :raises ModelLoadError: if a tensor is missing or of another shape.
    """
    if modernbert_config.is_packable(config):
        return ModernBert(weights, ModernBertConfig.from_config(config), pooling=pooling)
    sizes = BertConfig.from_config(config)
    return Bert(weights, sizes, passage_type=passage_type, pooling=pooling)


def make_head(config: Config, weights: Weights) -> Head:
    """The head of a packable ``*ForSequenceClassification``; errors as :func:`make_body`.

    :param weights: the whole checkpoint's.
    """
    if modernbert_config.is_packable(config):
        return modernbert_head(weights, ModernBertConfig.from_config(config))
    return bert_head(weights, BertConfig.from_config(config))


MAKERS = {"encoder": make_encoder}
