"""Health, readiness, info, models and metrics, at the paths of several services."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from .. import __version__
from ..catalog import languages_of
from ..wire.rows import COMMON
from .answers import answer_schema, json_response
from .api_errors import ApiError, ErrorKind, RefusedError
from .metrics import Metrics
from .models import ServedModel, find_model
from .routes import AUTH_PATH, HEALTH_PATHS, READY_PATHS
from .service import RerankService


class Status(BaseModel):
    """Health or readiness."""

    status: str


class ModelInfo(BaseModel):
    """One model of this server; TEI's names where it has them."""

    model_id: str
    model_dtype: str
    # Dify's plugin reads which kind it is
    model_type: dict[str, dict[str, Any]] = {"reranker": {}}
    languages: str | None = Field(
        default=None, description="Languages that the model reads, where the catalog knows them."
    )
    device: str
    max_input_length: int


class Info(ModelInfo):
    """The first model, all models and the limits of this server."""

    models: list[ModelInfo]
    max_documents: int
    max_client_batch_size: int = Field(description="The same, as text-embeddings-inference says.")
    max_concurrent_requests: int
    auto_truncate: bool = True
    max_characters: int
    max_body_bytes: int
    version: str


class ListedModel(BaseModel):
    """One name of a model, in OpenAI's format; Xinference's client reads what it is."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bge-rerank"
    model_name: str
    model_type: Literal["rerank"] = "rerank"


class ModelList(BaseModel):
    """The names of all models, in OpenAI's format."""

    object: Literal["list"] = "list"
    data: list[ListedModel]


def add_health_routes(app: FastAPI, service: RerankService, metrics: Metrics) -> None:
    """Add the paths for orchestrators and monitoring."""
    unavailable: dict[int | str, dict[str, Any]] = {503: {"model": Status}}
    unknown: dict[int | str, dict[str, Any]] = {
        404: {
            "description": "There is no such model.",
            "content": {"application/json": {"schema": answer_schema(COMMON.error)}},
        }
    }
    created = int(time.time())

    async def health() -> Response:
        """503 after an engine has failed: restart the process."""
        return _status("ok" if service.is_alive else "failed", ok=service.is_alive)

    async def ready() -> Response:
        """503 until all models are loaded: send no requests yet."""
        return _status("ready" if service.is_ready else "not ready", ok=service.is_ready)

    for paths, answer in ((HEALTH_PATHS, health), (READY_PATHS, ready)):
        for path in paths:
            app.get(path, response_model=Status, responses=unavailable)(answer)

    @app.get("/weaviate/meta", response_model=Info)
    @app.get("/tei/info", response_model=Info)
    @app.get("/info", response_model=Info)
    async def info() -> Response:
        """The first model, all models and the limits of this server."""
        models, settings = [_info_of(model) for model in service.models], service.settings
        return _json(
            Info(
                **dict(models[0]),
                models=models,
                max_documents=settings.max_documents,
                max_client_batch_size=settings.max_documents,
                max_concurrent_requests=settings.max_connections,
                max_characters=settings.max_characters,
                max_body_bytes=settings.max_body_bytes,
                version=__version__,
            )
        )

    @app.get("/models", response_model=ModelList)
    @app.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """The names that a request's ``model`` may have, aliases too."""
        names = [name for model in service.models for name in model.names]
        return _json(ModelList(data=[_listed(name, created) for name in names]))

    @app.get("/models/{name:path}", response_model=ListedModel, responses=unknown)
    @app.get("/v1/models/{name:path}", response_model=ListedModel, responses=unknown)
    async def model(name: str) -> Response:
        """One model, by any name that a request's ``model`` may have."""
        find_model(service.models, name)
        return _json(_listed(name, created))

    @app.get(AUTH_PATH, include_in_schema=False)
    async def auth() -> Response:
        # Xinference's client sends its key only if this says so; its servers without keys have none
        if not service.settings.api_keys:
            raise RefusedError(ApiError(ErrorKind.NOT_FOUND, "Not Found"))
        return json_response({"auth": True})

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _listed(name: str, created: int) -> ListedModel:
    return ListedModel(id=name, created=created, model_name=name)


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
    return json_response({"status": status}, 200 if ok else 503)


def _json(body: BaseModel) -> Response:
    return json_response(body.model_dump(exclude_none=True))
