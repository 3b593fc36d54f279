"""Health, readiness, info, models and metrics."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from bge_rerank_integrations import __version__
from bge_rerank_integrations.catalog import languages_of
from bge_rerank_integrations.serving.answers import json_response
from bge_rerank_integrations.serving.metrics import Metrics
from bge_rerank_integrations.serving.models import ServedModel
from bge_rerank_integrations.serving.service import RerankService


class Status(BaseModel):
    """Health or readiness."""

    status: str


class ModelInfo(BaseModel):
    """One model of this server; TEI's names where it has them."""

    model_id: str
    model_dtype: str
    languages: str | None = Field(
        default=None, description="Languages that the model reads, where the catalog knows them."
    )
    device: str
    max_input_length: int


class Info(ModelInfo):
    """The first model, all models and the limits of this server."""

    models: list[ModelInfo]
    max_documents: int
    max_characters: int
    max_body_bytes: int
    version: str


class ListedModel(BaseModel):
    """One name of a model, in OpenAI's format."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bge-rerank"


class ModelList(BaseModel):
    """The names of all models, in OpenAI's format."""

    object: Literal["list"] = "list"
    data: list[ListedModel]


def add_health_routes(app: FastAPI, service: RerankService, metrics: Metrics) -> None:
    """Add the paths for orchestrators and monitoring."""
    unavailable: dict[int | str, dict[str, Any]] = {503: {"model": Status}}

    @app.get("/health", response_model=Status, responses=unavailable)
    async def health() -> Response:
        """503 after an engine has failed: restart the process."""
        return _status("ok" if service.is_alive else "failed", ok=service.is_alive)

    # Weaviate's module starts when its service is ready
    @app.get("/weaviate/.well-known/ready", response_model=Status, responses=unavailable)
    @app.get("/ready", response_model=Status, responses=unavailable)
    async def ready() -> Response:
        """503 until all models are loaded: send no requests yet."""
        return _status("ready" if service.is_ready else "not ready", ok=service.is_ready)

    @app.get("/weaviate/meta", response_model=Info)
    @app.get("/info", response_model=Info)
    async def info() -> Response:
        """The first model, all models and the limits of this server."""
        models, settings = [_info_of(model) for model in service.models], service.settings
        return json_response(
            Info(
                **dict(models[0]),
                models=models,
                max_documents=settings.max_documents,
                max_characters=settings.max_characters,
                max_body_bytes=settings.max_body_bytes,
                version=__version__,
            )
        )

    created = int(time.time())

    @app.get("/models", response_model=ModelList)
    @app.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """The names that a request's ``model`` may have, aliases too."""
        names = [name for model in service.models for name in model.names]
        data = [ListedModel(id=name, created=created) for name in names]
        return json_response(ModelList(data=data))

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _info_of(model: ServedModel) -> ModelInfo:
    stats = model.engine.stats()
    return ModelInfo(
        model_id=model.names[0],
        model_dtype=stats.dtype,
        languages=languages_of(model.engine.model),
        device=stats.device,
        max_input_length=model.engine.max_length,
    )


def _status(status: str, *, ok: bool) -> Response:
    return json_response(Status(status=status), 200 if ok else 503)
