"""The files in which sentence-transformers 6 saves a cross-encoder of several modules.

``modules.json`` lists the modules; each has a ``config.json`` in a folder of its own, but for the
first, the transformer: ``sentence_bert_config.json`` says its task, how it takes its texts and how
long they may be. ``config_sentence_transformers.json`` has prompts and the activation. The format
is read off sentence-transformers' `base/model.py` and `base/modules/transformer.py`.

Classes that ``modules.json`` names are never imported: the list of modules is closed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...errors import ModelLoadError, UnsupportedModelError
from ...ranking import SCORE_ACTIVATIONS
from ..scorers.heads import HeadModule, Pooling, activation_name
from ..tokenization.chat import ChatTemplate
from .checkpoint import Checkpoint, read_json
from .encoders import HEAD_MODULES, read_head_module
from .ledger import FILES
from .tokenizer_files import NO_LIMIT, TokenizerFiles

_MODULES = ("Transformer", "Pooling", "LogitScore", *HEAD_MODULES)
_OUTPUTS = {
    "sequence-classification": "logits",
    "feature-extraction": "last_hidden_state",
    "text-generation": "logits",
}
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SIZES = {"padding", "truncation", "return_tensors", "max_length", "padding_side"}


class ModuleFiles:
    """What the files of a checkpoint say; each is read when it is asked for.

    Every attribute and method raises ``ModelLoadError`` naming the file that cannot be read, and
    ``UnsupportedModelError`` for what this package does not run.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def missing(self) -> str:
        """Why the files describe no scores; empty if they do."""
        if not (self.checkpoint.folder / "modules.json").is_file():
            return "it has no modules.json of sentence-transformers"
        kind = self._model.get("model_type", "SentenceTransformer")
        return "" if kind == "CrossEncoder" else f"its modules.json is of a {kind}"

    @cached_property
    def task(self) -> str:
        """What the transformer does, one of three."""
        self._check_file_names()
        task = str(self._transformer.get("transformer_task", "feature-extraction"))
        if task not in _OUTPUTS:
            raise self._unsupported("sentence_bert_config.json", f"the task {task!r}")
        kind, folder = self._modules[0]
        if (kind, folder) != ("Transformer", ""):
            raise self._unsupported("modules.json", f"{kind} in {folder!r} as its first module")
        for name in self._inputs.keys() & {"text", "message"}:
            way = self._object(self._inputs, name)
            way = way or {"method": "forward", "method_output_name": _OUTPUTS[task]}
            called = way.get("method"), way.get("method_output_name")
            if called not in (("forward", _OUTPUTS[task]), ("forward", [_OUTPUTS[task]])):
                raise self._unsupported("sentence_bert_config.json", f"{name} read by {called}")
        return task

    @cached_property
    def prompt(self) -> str | None:
        """The default prompt, where one is saved."""
        name = self._model.get("default_prompt_name")
        if name is None:
            return None
        prompts = self._model.get("prompts") or {}
        if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
            file = self._path("config_sentence_transformers.json")
            raise ModelLoadError(f"{file} names the prompt {name!r}, and has none of that name")
        return str(prompts[name])

    @cached_property
    def saved_activation(self) -> str | None:
        """What a logit is put through for a score, where it is saved with the modules."""
        path = self._model.get("activation_fn")
        if path is None:
            return None
        file = self._path("config_sentence_transformers.json")
        return activation_name(path, SCORE_ACTIVATIONS, file)

    @property
    def activation(self) -> str:
        """What a logit is put through for a score."""
        return self.saved_activation or "Sigmoid"

    @cached_property
    def max_length(self) -> int | None:
        """Tokens of a pair; None where only the model's own limit holds."""
        options = self._transformer
        named = [
            *(part.get("max_length") for part in self._processing),
            options.get("max_seq_length"),
            self._object(options, "processor_kwargs").get("model_max_length"),
            self._object(options, "tokenizer_args").get("model_max_length"),
            TokenizerFiles(self.checkpoint).max_length,
        ]
        lengths = [each for each in named if isinstance(each, (int, float)) and each < NO_LIMIT]
        return int(lengths[0]) if lengths else None

    @property
    def lowercase(self) -> bool:
        """Whether texts are put into lower case first."""
        return self._transformer.get("do_lower_case") is True

    def chat_template(self) -> ChatTemplate | None:
        """The chat template that pairs are put into, or None where they are read as pairs."""
        if "message" not in self._inputs:
            if "text" not in self._inputs:
                ways = ", ".join(map(str, self._inputs))
                raise self._unsupported("sentence_bert_config.json", f"inputs of {ways} alone")
            return None
        if self.task == "feature-extraction":
            raise self._unsupported(
                "sentence_bert_config.json", f"a chat template for the task {self.task!r}"
            )
        settings = self._processing[0]
        variables = {name: settings[name] for name in settings.keys() - _SIZES - {"restore_suffix"}}
        return TokenizerFiles(self.checkpoint).chat_template(
            self._object(self._inputs, "message").get("format"),
            variables,
            self.prompt,
        )

    def answer_tokens(self) -> tuple[int, int | None]:
        """The tokens of LogitScore: relevant, and irrelevant where it has one."""
        ((kind, folder),) = self.require_end(2)
        if kind != "LogitScore":
            raise self._unsupported("modules.json", f"{kind} behind a text generator")
        config = read_json(self.checkpoint.folder / folder / "config.json", dict)
        tokens = [config.get("true_token_id"), config.get("false_token_id")]
        vocabulary = self.checkpoint.config.get("vocab_size", 0)
        for name, token in zip(("true_token_id", "false_token_id"), tokens, strict=True):
            fits = isinstance(token, int) and 0 <= token < vocabulary
            if not (fits or (token is None and name == "false_token_id")):
                raise ModelLoadError(
                    f"{self._path(f'{folder}/config.json')}: {name} must be a token of the "
                    f"vocabulary of {vocabulary}, got {token!r}"
                )
        return tokens[0], tokens[1]  # type: ignore[return-value]

    def head(self) -> tuple[Pooling, tuple[HeadModule, ...]]:
        """Pooling, and the modules that lead from it to scores of one label."""
        (kind, folder), *rest = self.require_end()
        if kind != "Pooling":
            raise self._unsupported("modules.json", f"{kind} where Pooling must follow")
        pooling = self._pooling(folder)
        width = self.checkpoint.config.get("hidden_size", self.checkpoint.config.get("dim"))
        name, modules = "sentence_embedding", []
        for kind, folder in rest:
            if kind not in HEAD_MODULES:
                raise self._unsupported("modules.json", f"{kind} behind Pooling")
            module, name, width = read_head_module(self.checkpoint, kind, folder, name, width)
            if module is not None:
                modules.append(module)
        if name != "scores" or width != 1:
            raise self._unsupported(
                "modules.json", f"modules that end in {name!r} of {width}, and not in one score"
            )
        return pooling, tuple(modules)

    def require_end(self, count: int | None = None) -> Sequence[tuple[str, str]]:
        """The modules behind the transformer.

        :param count: of all modules; None means at least two.
        """
        found = len(self._modules)
        if found != count and (count is not None or found < 2):
            kinds = " → ".join(kind for kind, _ in self._modules)
            raise self._unsupported("modules.json", f"{kinds} for the task {self.task!r}")
        return self._modules[1:]

    def _check_file_names(self) -> None:
        """Refuse older names of ``sentence_bert_config.json``, which are read too elsewhere."""
        folder = self.checkpoint.folder
        if not (folder / "sentence_bert_config.json").is_file():
            for name, entry in FILES.items():
                if entry.word == "refused" and (folder / name).is_file():
                    raise UnsupportedModelError(
                        f"{folder.name} has {name}, which is not read here: {entry.note}"
                    )

    @cached_property
    def _model(self) -> dict[str, Any]:
        return self.checkpoint.read_json("config_sentence_transformers.json")

    @cached_property
    def _transformer(self) -> dict[str, Any]:
        return self.checkpoint.read_json("sentence_bert_config.json")

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """How the transformer takes each kind of input."""
        # without it the files are older than chat templates
        if "modality_config" not in self._transformer:
            return {"text": None}
        return self._object(self._transformer, "modality_config")

    @cached_property
    def _processing(self) -> list[dict[str, Any]]:
        """Settings of the tokenizer, the strongest first."""
        given = self._object(self._transformer, "processing_kwargs")
        parts = [self._object(given, name) for name in ("chat_template", "text", "common")]
        for part in parts[1:]:
            for name in part.keys() - _SIZES - {"logits_to_keep"}:
                raise self._unsupported("sentence_bert_config.json", f"the setting {name!r}")
        return parts

    @cached_property
    def _modules(self) -> list[tuple[str, str]]:
        """Kind and folder of each module."""
        modules = []
        for entry in read_json(self.checkpoint.folder / "modules.json", list):
            path = str(entry.get("type")) if isinstance(entry, dict) else repr(entry)
            kind = path.rpartition(".")[2]
            if not path.startswith("sentence_transformers.") or kind not in _MODULES:
                raise self._unsupported(
                    "modules.json", f"a module {path!r:.80}; known are {', '.join(_MODULES)}"
                )
            folder = entry.get("path", "")
            if not isinstance(folder, str) or not re.fullmatch(r"(\d+_\w+)?", folder):
                raise ModelLoadError(
                    f"{self._path('modules.json')} names the folder {folder!r:.80}"
                )
            modules.append((kind, folder))
        if not modules:
            raise ModelLoadError(f"{self._path('modules.json')} lists no module")
        return modules

    def _pooling(self, folder: str) -> Pooling:
        config = read_json(self.checkpoint.folder / folder / "config.json", dict)
        legacy = [mode for name, mode in _LEGACY_POOLING.items() if config.get(name)]
        mode = config.get("pooling_mode", legacy or "mean")
        mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
        if mode not in ("cls", "mean"):
            raise self._unsupported(f"{folder}/config.json", f"pooling by {mode!r}")
        if not config.get("include_prompt", True) and self.prompt:
            raise self._unsupported(f"{folder}/config.json", "pooling without the prompt")
        pooling: Pooling = mode
        return pooling

    def _object(self, given: dict[str, Any], name: str) -> dict[str, Any]:
        """An object within ``sentence_bert_config.json``; empty if it is not there."""
        value = given.get(name) or {}
        if not isinstance(value, dict):
            file = self._path("sentence_bert_config.json")
            raise ModelLoadError(f"{file}: {name} must be a JSON object, got {value!r:.80}")
        return value

    def _path(self, file: str) -> str:
        return f"{self.checkpoint.folder.name}/{file}"

    def _unsupported(self, file: str, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self._path(file)} has {what}, which is not run here")
