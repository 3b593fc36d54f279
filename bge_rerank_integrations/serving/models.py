"""The models of a server: each is loaded once, and found by any of its names."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeAlias

from ..checks import require
from ..errors import ConfigurationError
from .api_errors import ApiError, ErrorKind, RefusedError

if TYPE_CHECKING:
    from .. import RerankEngine

    # an engine, or a function that makes one
    EngineSource: TypeAlias = RerankEngine | Callable[[], RerankEngine]

logger = logging.getLogger(__name__)

_LOADING = "load-model"


class ServedModel:
    """One engine of a server, and its names.

    :param engine: an engine, or a function that makes one; it is called once, in a thread.
    :param names: what requests call it; with none, its engine's name for the model.
    """

    def __init__(self, engine: EngineSource, names: Sequence[str] = ()) -> None:
        self._load = engine if callable(engine) else None
        self._engine = None if callable(engine) else engine
        self._error: Exception | None = None
        self._names = tuple(names)

    async def load(self) -> Exception | None:
        """Load the engine.

        :returns: the error, if it cannot be made.
        """
        if self._load is None:
            return None
        try:
            self._engine = await _in_daemon_thread(self._load)
        except Exception as error:
            logger.error("the engine could not be loaded: %s", error)
            self._error = error
        return self._error

    @property
    def is_alive(self) -> bool:
        """False after the engine could not be loaded, failed or was closed."""
        return self._error is None and (self._engine is None or self._engine.is_alive)

    @property
    def is_ready(self) -> bool:
        """Whether the engine is loaded and alive."""
        return self._engine is not None and self._engine.is_alive

    @property
    def engine(self) -> RerankEngine:
        """The engine.

        :raises RefusedError: if it is not loaded.
        """
        if self._engine is None:
            message = "the model is being loaded" if self._error is None else "there is no model"
            raise RefusedError(ApiError(ErrorKind.UNAVAILABLE, message))
        return self._engine

    @property
    def names(self) -> tuple[str, ...]:
        """The names in lists of models; the first one is in responses.

        :raises RefusedError: if it was given none, and the engine is not loaded.
        """
        return self._names or (self.engine.model,)

    @property
    def short_names(self) -> set[str]:
        """The engine's name for the model, names without owner or folder, and Azion's form."""
        full = {*self._names, *([] if self._engine is None else [self._engine.model])}
        last = {PurePath(name).name for name in full}
        return full | last | {name.lower().replace("/", "-") for name in full}


def served_models(engines: EngineSource | Mapping[str, EngineSource]) -> tuple[ServedModel, ...]:
    """The models of a server.

    :param engines: one engine, or several by name; an engine under several names has them all.
    :raises ConfigurationError: if there is no engine, or one without a name.
    """
    if not isinstance(engines, Mapping):
        return (ServedModel(engines),)
    are_named = all(isinstance(name, str) and name.strip() for name in engines)
    require(bool(engines) and are_named, "engines", "an engine, or engines by name", engines)
    names: dict[int, list[str]] = {}
    for name, engine in engines.items():
        names.setdefault(id(engine), []).append(name)
    return tuple(ServedModel(engines[same[0]], same) for same in names.values())


def is_loading() -> bool:
    """Whether a thread of this process loads a model, which nothing can interrupt."""
    return any(thread.name == _LOADING for thread in threading.enumerate())


def _in_daemon_thread(load: Callable[[], RerankEngine]) -> asyncio.Future[RerankEngine]:
    """Call a function in a thread for which the process does not wait when it ends."""
    future: Future[RerankEngine] = Future()
    # from now on, cancelling it does nothing
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(load())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=_LOADING, daemon=True).start()
    return asyncio.wrap_future(future)


def find_model(
    models: Sequence[ServedModel], name: str | None, in_path: str | None = None
) -> ServedModel:
    """The model that a request names.

    :param models: all models of a server.
    :param name: one of a model's names; or a short name, if one model alone has it. None or empty
        means the one in the path, or the first model.
    :param in_path: the name in the request's path, which may have an owner that is not ours.
    :raises RefusedError: if no model has that name, or if it is not loaded.
    """
    asked = [name] if name else [in_path, PurePath(in_path).name] if in_path else []
    if not asked:
        return models[0]
    for each in asked:
        for model in models:
            if each in model.names:
                return model
        called = [model for model in models if each in model.short_names]
        if len(called) == 1:
            return called[0]
    for model in models:
        _ = model.engine  # its name for the model is not known before it is loaded
    known = ", ".join(name for model in models for name in model.names)
    message = f"there is no model {asked[0]!r:.100}; the models are {known}"
    raise RefusedError(ApiError(ErrorKind.NOT_FOUND, message, "model"))


def read_models(texts: Iterable[str]) -> dict[str, str]:
    """The models of a command line: ``ID``, or ``NAME=ID`` for a name of one's own.

    :returns: name → hub id or folder, in the order given.
    :raises ConfigurationError: if there is none, or if two models have one name.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, _, model = (part.strip() for part in text.partition("="))
        model = model if "=" in text else name
        require(bool(name and model), "model", "ID or NAME=ID", text)
        if models.setdefault(name, model) != model:
            raise ConfigurationError(f"two models are called {name}: {models[name]} and {model}")
    require(bool(models), "model", "ID or NAME=ID", models)
    return models
