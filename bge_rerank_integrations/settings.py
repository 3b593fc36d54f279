"""Every setting, declared once: its type, default, check and description.

:class:`EngineConfig` says what is loaded, and where: one loaded model per config and process.
:class:`CallOptions` say how a call is scored; they travel with the call, and calls with different
options share one model. Adapters, command line, server and Ray show the declarations of this page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from .checks import (
    BOOL,
    DEVICES,
    LAYERS,
    PATH,
    RATIO,
    TEXT,
    TIMEOUT,
    WAIT,
    SettingType,
    at_least,
    one_of,
    reject_unknown_settings,
    require,
)
from .errors import ConfigurationError
from .setting_types import Dtype, LongDocuments

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .setting_types import ConfigKeywords, PathOrName

DEFAULT_MODEL = "BAAI/bge-reranker-v2-m3"
BUILT_IN_MODEL = "tiny"
# FlagEmbedding's
DEFAULT_MAX_LENGTH = 512


def setting(default: Any, setting_type: SettingType, description: str) -> Any:
    return field(default=default, metadata={"type": setting_type, "description": description})


@dataclass(frozen=True)
class Settings:
    """Checks and converts each field as its declaration says.

    :raises ConfigurationError: naming the setting, what was expected and what came.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            value = each.metadata["type"].checked(each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, value)


@dataclass(frozen=True)
class EngineConfig(Settings):
    """What is loaded, and where; hashable and picklable.

    The settings are described where they are declared, and in the table of settings.

    :raises ConfigurationError: naming the setting, what was expected and what came.
    """

    model: str = setting(
        DEFAULT_MODEL,
        PATH,
        "Hub id, folder of a checkpoint, or 'tiny' for the built-in English model. In Python the "
        "default is BAAI/bge-reranker-v2-m3; bge-rerank and its server take 'tiny'.",
    )
    revision: str | None = setting(
        None, TEXT.or_none(), "Branch, tag or commit of a hub model; None means the newest."
    )
    recipe: str | None = setting(
        None,
        TEXT.or_none(),
        "How the model scores, by the name of a recipe of the catalog; None reads it off the "
        "model's files or its name, and refuses a model that proves none.",
    )
    device: str | tuple[str, ...] = setting(
        "auto",
        DEVICES,
        "'auto' (also None), one device ('cpu', 'cuda:1', 'mps'), or several: one replica of the "
        "model each.",
    )
    dtype: Dtype = setting(  # noqa: RUF009  # it makes a field
        "auto",
        one_of(Dtype),
        "'auto' takes bfloat16 on CUDA and on a CPU where one layer, timed at load, is faster in "
        "it, float16 on older CUDA and on MPS, and float32 elsewhere; 'float32' equals the "
        "reference to 1e-5; 'int8' (encoders on a CPU) is faster than float32, and its scores are "
        "a little off.",
    )
    cutoff_layers: tuple[int, ...] | None = setting(
        None,
        LAYERS.or_none(),
        "Score after this number of layers, or after several (layerwise and lightweight models); "
        "None means the last.",
    )
    compress_ratio: int | None = setting(
        None, RATIO.or_none(), "1, 2, 4 or 8 passage tokens become one (lightweight models)."
    )
    compress_layers: tuple[int, ...] | None = setting(
        None, LAYERS.or_none(), "Before which layers that happens (lightweight models)."
    )
    cache_folder: str | None = setting(
        None, PATH.or_none(), "Where hub downloads are kept; None means the hub's own default."
    )
    local_files_only: bool = setting(False, BOOL, "Never reach for the network.")
    max_batch_tokens: int | None = setting(
        None, at_least(1).or_none(), "Tokens in one forward pass; None chooses for the device."
    )
    max_cached_tokens: int = setting(
        5_000_000,
        at_least(0),
        "Token ids to remember for texts that come again; 12 bytes a token with its text.",
    )
    max_queued_pairs: int = setting(
        100_000, at_least(1), "(query, document) pairs that may wait at one time."
    )

    if TYPE_CHECKING:
        # the fields are read in one form each, and given in several
        def __init__(
            self, model: PathOrName = DEFAULT_MODEL, **settings: Unpack[ConfigKeywords]
        ) -> None: ...

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, always as a tuple."""
        return (self.device,) if isinstance(self.device, str) else self.device


@dataclass(frozen=True)
class CallOptions(Settings):
    """How a call is scored; an engine carries defaults, and each call may override them.

    The options are described where they are declared, and in the table of settings.

    :raises ConfigurationError: naming the option, what was expected and what came.
    """

    max_length: int | None = setting(
        None,
        at_least(16).or_none(),
        "Tokens of query, passage and special tokens together, at most; the model's own limit is "
        "the ceiling. None means what was saved with the model (model_max_length; other than "
        f"sentence-transformers', at most {DEFAULT_MAX_LENGTH}), else {DEFAULT_MAX_LENGTH}.",
    )
    query_max_length: int | None = setting(
        None,
        at_least(1).or_none(),
        "Tokens of the query, at most; None means three quarters of max_length.",
    )
    max_document_tokens: int | None = setting(
        None, at_least(1).or_none(), "Cut each document after this many tokens; None reads all."
    )
    long_documents: LongDocuments | None = setting(  # noqa: RUF009  # it makes a field
        None,
        one_of(LongDocuments).or_none(),
        "What becomes of a document that is too long: 'truncate' reads its head; 'truncate_left' "
        "reads its end; 'window' reads all of it in overlapping windows and takes the best; "
        "'refuse' raises InputError. None means as the model's tokenizer was saved: 'truncate', or "
        "'truncate_left' with truncation_side \"left\".",
    )
    instruction: str | None = setting(
        None,
        TEXT.or_none(),
        "What a decoder is asked to judge, or the prompt before the query of an encoder that has "
        "one; None means what the model was trained with.",
    )
    normalize: bool = setting(
        True,
        BOOL,
        "Report what the activation saved with the model makes of the logit (where none is: the "
        "sigmoid, between 0 and 1), instead of the logit.",
    )
    calibration: str | None = setting(
        None,
        PATH.or_none(),
        "File of 'bge-rerank calibrate' for this model: normalize reports the probabilities of "
        "relevance that it makes of logits.",
    )
    timeout_s: float | None = setting(
        None, TIMEOUT.or_none(), "Seconds after which the call fails with DeadlineError."
    )
    queue_timeout_s: float = setting(
        0.0,
        WAIT,
        "Seconds that a call waits for a place in a full queue before OverloadedError; 0 raises at "
        "once.",
    )
    max_wait_s: float | None = setting(
        None,
        WAIT.or_none(),
        "The queue is full for a call whose answer, at the speed measured so far, would take more "
        "seconds than this, or than its timeout_s; None means that no time is estimated.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shorter = (self.query_max_length or 0) < (self.max_length or math.inf)
        require(shorter, "query_max_length", f"less than max_length ({self.max_length})",
                self.query_max_length)  # fmt: skip


_DECLARATIONS = {each.name: each for group in (EngineConfig, CallOptions) for each in fields(group)}

#: the names of all settings, in the order of their declarations
SETTINGS: Sequence[str] = tuple(_DECLARATIONS)
#: those that a call may give
OPTIONS: Sequence[str] = tuple(each.name for each in fields(CallOptions))


def default_of(name: str) -> Any:
    """A setting's default."""
    return _DECLARATIONS[name].default


def description_of(name: str) -> str:
    """What a setting means."""
    description: str = _DECLARATIONS[name].metadata["description"]
    return description


def metavar_of(name: str) -> str:
    """A setting's type as a command line shows it."""
    setting_type: SettingType = _DECLARATIONS[name].metadata["type"]
    return setting_type.metavar


def checked(name: str, value: Any) -> Any:
    """A setting's value in the form that it is kept in.

    :raises ConfigurationError: naming the setting, what was expected and what came.
    """
    setting_type: SettingType = _DECLARATIONS[name].metadata["type"]
    return setting_type.checked(name, value)


def read_setting(name: str, text: str) -> Any:
    """A setting's value out of a text: of a command line, a variable or a config file.

    Several devices or layers have commas between them.

    :raises ConfigurationError: naming the setting, what was expected and what came.
    """
    setting_type: SettingType = _DECLARATIONS[name].metadata["type"]
    try:
        value = setting_type.read(text)
    except (ValueError, KeyError):
        raise ConfigurationError(f"{name} must be {setting_type.expected}, got {text!r}") from None
    return checked(name, value)


def split_settings(
    model: PathOrName | EngineConfig, settings: Mapping[str, Any]
) -> tuple[EngineConfig, CallOptions]:
    """A model and settings by name → what is loaded, and how calls are scored.

    :param model: a model's name; or a whole config, which leaves only options for ``settings``.
    :raises ConfigurationError: for a value that cannot work, and for a name that is no setting.
    """
    if isinstance(model, EngineConfig):
        return model, overridden(CallOptions(), settings)
    reject_unknown_settings(settings, SETTINGS[1:])
    options = {name: settings[name] for name in OPTIONS if name in settings}
    loaded = {name: value for name, value in settings.items() if name not in options}
    return EngineConfig(model, **loaded), CallOptions(**options)


def overridden(options: CallOptions, overrides: Mapping[str, Any]) -> CallOptions:
    """The options of a call that gives some of its own.

    :raises ConfigurationError: for a value that cannot work, and for a name that is no option.
    """
    reject_unknown_settings(overrides, OPTIONS)
    return replace(options, **overrides) if overrides else options
