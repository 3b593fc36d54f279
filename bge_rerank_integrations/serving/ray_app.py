"""The server on a Ray cluster: the same application in several replicas.

::

    serve run bge_rerank_integrations.serving.ray_app:app model=tiny replicas=2

Ray routes, restarts and scales. Its batching is off: the engine batches.
"""

# no "from __future__ import annotations": Ray evaluates the builder's annotation itself

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checks import require
from ..errors import ConfigurationError, EngineFailedError, MissingExtraError

try:
    from ray import serve
except ModuleNotFoundError as error:
    if error.name == "ray":
        raise MissingExtraError("ray") from error
    raise

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine.engine import RerankEngine
from ..setting_types import API_KEY_VARIABLE
from ..settings import BUILT_IN_MODEL, SETTINGS, checked, read_setting, split_settings
from .app import create_app
from .metrics import start_tracing
from .models import read_models
from .routes import REQUEST_ID_HEADER
from .settings import NOT_SERVED, SERVED_DEFAULTS, ServerSettings, read_api_keys

# settings of the server that are arguments of their own
_LIMITS = ("max_documents", "max_characters", "max_body_bytes", "body_timeout_s", "timeout_s")
_SETTINGS = frozenset(SETTINGS) - {"model", *NOT_SERVED}


class RayArguments(BaseModel):
    """Arguments of ``serve run …:app name=value``, or ``args`` in a Serve config file.

    API keys are read from ``api_key_file``, else from ``BGE_RERANK_API_KEY``, in the process that
    builds the application; without any, ``no_api_key`` must say so, for Ray may listen anywhere.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        default=BUILT_IN_MODEL,
        description="A model, or several with commas between; NAME=ID for a name of your own.",
    )
    engine: dict[str, Any] = Field(
        default_factory=dict,
        description="The engine's other settings by name; each may be an argument of its own.",
    )
    api_key_file: Path | None = Field(default=None, description="One API key a line.")
    no_api_key: bool = Field(default=False, description="Let everybody in without a key.")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Host names of this server; with none, all."
    )
    max_documents: int = ServerSettings.max_documents
    max_characters: int = ServerSettings.max_characters
    max_body_bytes: int = ServerSettings.max_body_bytes
    body_timeout_s: float = ServerSettings.body_timeout_s
    timeout_s: float = ServerSettings.timeout_s
    replicas: int = Field(default=1, ge=1, description="Replicas; the minimum with autoscaling.")
    max_replicas: int | None = Field(
        default=None, ge=1, description="Autoscale between replicas and this number."
    )
    gpus_per_replica: float = Field(default=0.0, ge=0.0)
    cpus_per_replica: float = Field(default=1.0, ge=0.0)
    max_ongoing_requests: int = Field(
        default=64, ge=1, description="Maximum number of requests in one replica."
    )
    max_queued_requests: int = Field(
        default=256, ge=0, description="Maximum number of waiting requests; more get 503."
    )

    @model_validator(mode="before")
    @classmethod
    def _collect_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
        engine = given.get("engine", {})
        are_settings = isinstance(engine, Mapping) and engine.keys() <= _SETTINGS
        require(are_settings, "engine", f"a mapping of {', '.join(sorted(_SETTINGS))}", engine)
        settings = {**SERVED_DEFAULTS, **engine, **{n: given[n] for n in given if n in _SETTINGS}}
        engine = {
            # as text on a command line, typed in a config file
            name: read_setting(name, value) if isinstance(value, str) else checked(name, value)
            for name, value in settings.items()
        }
        return {n: given[n] for n in given if n not in _SETTINGS} | {"engine": engine}


class RerankReplica:
    """Engines and their application, in one process.

    :param models: name → hub id or folder.
    :param engine: the other settings of every engine.
    :param limits: the server's settings.
    """

    def __init__(
        self, models: Mapping[str, str], engine: dict[str, Any], limits: ServerSettings
    ) -> None:
        # loaded here: Ray sends requests only after this returns
        loaded = {model: RerankEngine(model, **engine) for model in set(models.values())}
        self._engines = {name: loaded[model] for name, model in models.items()}
        self._limits = limits

    def __serve_build_asgi_app__(self) -> Any:
        app = create_app(self._engines, self._limits, tracer_provider=start_tracing())
        # Ray's proxy adds the same header
        return _WithoutRequestId(app)

    def check_health(self) -> None:
        """Called by Ray, which replaces the replica on an error.

        :raises EngineFailedError: if an engine has failed.
        """
        if not all(engine.is_alive for engine in self._engines.values()):
            raise EngineFailedError("an engine failed")


class _WithoutRequestId:
    """Leaves the request's id to Ray's proxy, which gives it to the request and to the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        await self._app(scope, receive, send_without_id)


def app(arguments: RayArguments) -> Any:
    """Build the Serve application.

    :returns: a ``ray.serve.Application``.
    :raises ConfigurationError: for an invalid setting.
    """
    # now, so that settings that do not fit each other are refused before a replica starts
    models = read_models(arguments.model.split(","))
    for model in models.values():
        split_settings(model, arguments.engine)
    keys = read_api_keys(file=arguments.api_key_file)
    if bool(keys) == arguments.no_api_key:
        raise ConfigurationError(
            f"set {API_KEY_VARIABLE} or api_key_file, or let everybody in with no_api_key: true; "
            "not both"
        )
    limits = ServerSettings(
        api_keys=keys,
        allowed_hosts=tuple(arguments.allowed_hosts),
        **{name: getattr(arguments, name) for name in _LIMITS},
    )
    # Ray's types take a class for a function here
    deployment: Any = serve.deployment(
        serve.ingress()(RerankReplica),
        name="RerankReplica",
        max_ongoing_requests=arguments.max_ongoing_requests,
        max_queued_requests=arguments.max_queued_requests,
        # a replica finishes its requests before it stops
        graceful_shutdown_timeout_s=math.ceil(arguments.timeout_s),
        ray_actor_options={
            "num_gpus": arguments.gpus_per_replica,
            "num_cpus": arguments.cpus_per_replica,
        },
        **_scale(arguments),
    )
    return deployment.bind(models, arguments.engine, limits)


def _scale(arguments: RayArguments) -> dict[str, Any]:
    if arguments.max_replicas is None:
        return {"num_replicas": arguments.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": arguments.replicas,
            "max_replicas": max(arguments.max_replicas, arguments.replicas),
            # half: capacity for a burst while the next replica loads its model
            "target_ongoing_requests": max(arguments.max_ongoing_requests / 2, 1),
        }
    }
