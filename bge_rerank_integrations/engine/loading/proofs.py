"""Which recipe a checkpoint has, and what proves it; a model without a proof is refused.

A wrong recipe gives scores that look like scores. So none is guessed from a model's class: a chat
model and a reranker are of the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...catalog import CATALOG
from ...errors import ConfigurationError, ModelLoadError, UnsupportedModelError
from ...ranking import SCORE_ACTIVATIONS
from ...settings import DEFAULT_MAX_LENGTH, EngineConfig
from ..scorers.heads import activation_name
from ..scorers.weights import WeightFiles
from .checkpoint import Checkpoint
from .module_files import ModuleFiles
from .recipes import PACKED_DECODERS, RECIPES, Answer, Recipe
from .tokenizer_files import TokenizerFiles

# a classifier of one label over plain pairs
_CLASSIFIER = "sequence-classification"
# the last layers of transformers' classifiers
_ROWS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "score.weight",
    "classification_head.weight",
    "classification_head.out_proj.weight",
    "logits_proj.weight",
)
_ROBERTA = ("Roberta", "XLMRoberta", "Camembert")
# transformers' classes of the types that run without it
_CLASSES = {
    "bert": ("Bert",),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "modernbert": ("ModernBert",),
}
# a class that only one recipe has proves it
_OWN_CLASSES = {
    "LayerWiseMiniCPMForCausalLM": "bge-reranker-v2-minicpm-layerwise",
    "CostWiseGemmaForCausalLM": "bge-reranker-v2.5-gemma2-lightweight",
}
# their texts stand in a prompt that none of their files holds
_PROMPTED_CLASSIFIERS = RECIPES["nemotron-rerank"].architectures
_SAY_IT = (
    f"If it was trained as one of the catalog's, say so: recipe= one of {', '.join(RECIPES)}; or "
    f"as a classifier of plain pairs: recipe={_CLASSIFIER!r}"
)


def read_recipe(config: EngineConfig, checkpoint: Checkpoint) -> Recipe:
    """The first recipe that something proves: setting, saved modules, catalog, or classifier.

    :raises ConfigurationError: for a ``recipe`` that is not in the catalog, or not for this model.
    :raises UnsupportedModelError: if nothing proves one, saying what was looked for.
    :raises ModelLoadError: for a file that cannot be read.
    """
    if config.recipe is not None:
        return _named(config.recipe, checkpoint)
    files = ModuleFiles(checkpoint)
    if not files.missing:
        return _from_modules(files)
    for found, name in _names(config, checkpoint):
        recipe = RECIPES.get(_recipe_of(name) or "")
        if recipe is not None and checkpoint.architecture in recipe.architectures:
            return _proven(recipe, checkpoint, f"the catalog knows its {found}, {name!r}")
    if own := _OWN_CLASSES.get(checkpoint.architecture):
        return _proven(RECIPES[own], checkpoint, "only models of this recipe have its class")
    if _is_classifier(checkpoint) and checkpoint.architecture not in _PROMPTED_CLASSIFIERS:
        return _classifier(checkpoint)
    named = checkpoint.architecture if checkpoint.config.get("architectures") else "model"
    raise UnsupportedModelError(
        f"{checkpoint.folder.name} is a {named} of type {checkpoint.model_type!r}, and nothing "
        f"proves how it scores a pair: {files.missing}; it "
        "is no …ForSequenceClassification of plain pairs; and the catalog knows no model of its "
        f"name and class. {_SAY_IT}"
    )


def _named(name: str, checkpoint: Checkpoint) -> Recipe:
    if name == _CLASSIFIER:
        if not (_is_classifier(checkpoint) or _has_row(checkpoint)):
            raise ConfigurationError(
                f"recipe {name!r} is for classifiers of one label, and the weights of "
                f"{checkpoint.folder.name} have no {', '.join(_ROWS[:3])} of one row"
            )
        return replace(_classifier(checkpoint, of_plain_pairs=True), proof="the setting recipe")
    if name not in RECIPES:
        names = ", ".join([*RECIPES, _CLASSIFIER])
        raise ConfigurationError(f"recipe must be one of {names}, got {name!r}")
    recipe = RECIPES[name]
    fits = checkpoint.architecture in recipe.architectures
    if recipe.answer is not None:
        # a prompt may be fine-tuned into any decoder; other heads are of one class alone
        is_decoder = checkpoint.model_type in PACKED_DECODERS and _is_classifier(checkpoint)
        fits = is_decoder or checkpoint.architecture.endswith("ForCausalLM")
    if not fits:
        raise ConfigurationError(
            f"recipe {name!r} is for {', '.join(sorted(recipe.architectures))}, and "
            f"{checkpoint.folder.name} is a {checkpoint.architecture}"
        )
    return _proven(recipe, checkpoint, "the setting recipe")


def _proven(recipe: Recipe, checkpoint: Checkpoint, proof: str) -> Recipe:
    """A catalog's recipe; a classifier's own row takes the place of the answer's.

    :raises UnsupportedModelError: for a classifier of more labels than one.
    """
    if _is_classifier(checkpoint):
        recipe = replace(recipe, answer=None, activation=_classifier_activation(checkpoint))
    return replace(recipe, proof=proof)


def _is_classifier(checkpoint: Checkpoint) -> bool:
    """Whether class or, where none but a body's is named, weights are a classifier's."""
    if _names_class(checkpoint):
        return True
    named = checkpoint.config.get("architectures")
    return (not named or checkpoint.architecture.endswith("Model")) and _has_row(checkpoint)


def _names_class(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith("ForSequenceClassification")


def _has_row(checkpoint: Checkpoint) -> bool:
    """Whether the weights have a classifier of one label."""
    try:
        files = WeightFiles(checkpoint.folder, checkpoint.open_tensors())
        row = next((name for name in _ROWS if name in files), None)
        return row is not None and len(files.read(row, (1, None))) == 1
    except ModelLoadError:
        return False


def _classifier(checkpoint: Checkpoint, *, of_plain_pairs: bool = False) -> Recipe:
    """The recipe of a ``…ForSequenceClassification``.

    A tokenizer with a chat template reads pairs through it, as sentence-transformers' `Transformer`
    does; so a reward model, whose template has no query and document, is refused.

    :param of_plain_pairs: whether a chat template is left unread.
    :raises UnsupportedModelError: if it has more labels than one, or a template of a chat.
    """
    _check_class(checkpoint)
    template, files = None, TokenizerFiles(checkpoint)
    if files.has_chat_template and not of_plain_pairs:
        try:
            template = files.chat_template(None, {}, None)
            template.check_roles()
        except ModelLoadError as error:
            raise UnsupportedModelError(
                f"{checkpoint.folder.name} is a classifier with a chat template "
                f"that is not for pairs of query and document: {error}. {_SAY_IT}"
            ) from error
    source = "config.json" if _names_class(checkpoint) else "the weights"
    return Recipe(
        _CLASSIFIER,
        "decoder" if checkpoint.model_type in PACKED_DECODERS else "encoder",
        proof=f"{source}: a classifier of one label",
        template=template,
        activation=_classifier_activation(checkpoint),
        max_length=_saved_length(checkpoint, files),
    )


def _check_class(checkpoint: Checkpoint) -> None:
    """Refuse a class of the checkpoint's own: its code may pool or score in any way.

    Types that only transformers runs are checked against its list when they are loaded.

    :raises UnsupportedModelError: naming the class.
    """
    prefixes = _CLASSES.get(checkpoint.model_type)
    named = checkpoint.architecture
    if checkpoint.config.get("architectures") and prefixes is not None:
        pattern = rf"({'|'.join(prefixes)})(Model|For\w+|LMHeadModel)"
        if not re.fullmatch(pattern, named):
            raise UnsupportedModelError(
                f"{checkpoint.folder.name} is a {named}, which is no class of transformers for "
                f"type {checkpoint.model_type!r}: code of a checkpoint is never run, and that "
                "type's own class may score otherwise. If it scores the same, name that one in the "
                "architectures of config.json"
            )


def _saved_length(checkpoint: Checkpoint, files: TokenizerFiles) -> int | None:
    """Tokens of a pair where a call names no number; None for FlagEmbedding's."""
    saved = files.max_length
    if saved is None or isinstance(checkpoint.config.get("sentence_transformers"), dict):
        return saved
    # FlagEmbedding's trainer leaves the base model's limit there, and its inference reads 512
    return min(saved, DEFAULT_MAX_LENGTH)


def _classifier_activation(checkpoint: Checkpoint) -> str:
    """What ``normalize`` reports of the one label's logit.

    :raises UnsupportedModelError: if there are more labels than one.
    """
    config = checkpoint.config
    # as transformers counts: those that have a name, else the number given, else 2; with
    # sentence-transformers, a model that was not saved as a classifier has one
    labels = 1
    if _names_class(checkpoint):
        labels = len(config.get("id2label") or ()) or int(config.get("num_labels", 2))
    if labels != 1:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} classifies into {labels} labels; a reranker has one"
        )
    saved = config.get("sentence_transformers")
    # the second name is that of sentence-transformers before version 4
    path = (saved if isinstance(saved, dict) else {}).get("activation_fn") or config.get(
        "sbert_ce_default_activation_function"
    )
    if path is None:
        return "Sigmoid"
    return activation_name(path, SCORE_ACTIVATIONS, f"{checkpoint.folder.name}/config.json")


def _from_modules(files: ModuleFiles) -> Recipe:
    """The recipe that sentence-transformers saved.

    :raises UnsupportedModelError: for modules or settings that this package does not run.
    """
    task = files.task
    _check_class(files.checkpoint)
    is_classifier = task == "sequence-classification"
    packed = files.checkpoint.model_type in PACKED_DECODERS
    recipe = Recipe(
        f"sentence-transformers {task}",
        "decoder" if task == "text-generation" or (is_classifier and packed) else "encoder",
        proof="modules.json of sentence-transformers",
        template=files.chat_template(),
        prompt=files.prompt,
        activation=files.activation,
        max_length=files.max_length,
        lowercase=files.lowercase,
    )
    if is_classifier:
        files.require_end(1)
        activation = _classifier_activation(files.checkpoint)
        return replace(recipe, activation=files.saved_activation or activation)
    if task == "text-generation":
        return replace(recipe, answer=Answer(*files.answer_tokens()))
    pooling, modules = files.head()
    return replace(recipe, pooling=pooling, modules=modules)


def _names(config: EngineConfig, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """What may be a catalog's name, and where it was found."""
    if not Path(config.model).expanduser().is_dir():
        yield "hub id", config.model
    yield from _names_of_folder(checkpoint.folder.absolute())
    if checkpoint.adapter is not None and checkpoint.base is not None:
        yield "adapter's base", str(checkpoint.adapter.base)
        yield from _names_of_folder(checkpoint.base.folder.absolute())
    if saved := checkpoint.config.get("_name_or_path"):
        yield "_name_or_path", str(saved)


def _names_of_folder(folder: Path) -> Iterator[tuple[str, str]]:
    cached = re.fullmatch(r"models--(.+?)--(.+)", folder.parent.parent.name)
    if cached and folder.parent.name == "snapshots":
        yield "folder in the hub's cache", "/".join(cached.groups())
    else:
        yield "folder's name", folder.name


def _recipe_of(name: str) -> str | None:
    """The catalog's recipe of a hub id, of a folder's name or of an absolute path."""
    is_hub_id = "/" in name and not name.startswith(("/", ".", "~"))
    for entry in CATALOG:
        for model in (entry.model, *entry.conversions):
            known = model if is_hub_id else model.rpartition("/")[2]
            if known.lower() == (name if is_hub_id else Path(name).name).lower():
                return entry.recipe
    return None
