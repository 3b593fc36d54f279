"""Azion's ``Azion.AI.run(model, …)``: reranking and scoring on one path."""

from __future__ import annotations

from dataclasses import replace

from bge_rerank_integrations.serving.dialects import vllm
from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.dialects.infinity import OpenAIError, openai_error

AZION = Dialect("azion", openai_error, OpenAIError)
RERANK = replace(vllm.RERANK, dialect=AZION)
SCORE = replace(vllm.SCORE, dialect=AZION)
