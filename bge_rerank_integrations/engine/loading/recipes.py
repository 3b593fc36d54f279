"""What makes a checkpoint's logit, and what proves it; a model without a proof is refused.

A wrong recipe gives scores that look like scores. So none is guessed from a model's class: a chat
model and a reranker are of the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bge_rerank_integrations.catalog import CATALOG
from bge_rerank_integrations.engine.loading.chat_files import has_chat_template, read_chat_template
from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.head_modules import HeadModule
from bge_rerank_integrations.engine.loading.module_files import ModuleFiles
from bge_rerank_integrations.engine.scorers.heads import Pooling, activation_name
from bge_rerank_integrations.engine.tokenization import templates
from bge_rerank_integrations.engine.tokenization.chat import ChatTemplate
from bge_rerank_integrations.engine.tokenization.templates import PromptTemplate
from bge_rerank_integrations.errors import ConfigurationError, ModelLoadError, UnsupportedModelError
from bge_rerank_integrations.ranking import SCORE_ACTIVATIONS
from bge_rerank_integrations.settings import EngineConfig

# whose layers take packed attention as their own: no window, cap or scale that it would not see
PACKED_DECODERS = ("gemma", "llama", "mistral", "qwen2", "qwen3")
LAYER_SETTINGS = ("cutoff_layers", "compress_ratio", "compress_layers")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whose logit after the last token is the score, by token or by its text.

    :param relevant: token of the relevant answer.
    :param irrelevant: token whose logit is subtracted, or None.
    """

    relevant: str | int
    irrelevant: str | int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a pair becomes a logit.

    :param name: of a catalog's recipe, or of what was read.
    :param family: encoder, decoder, bidirectional, layerwise or lightweight.
    :param proof: what proves it.
    :param template: texts around a pair; None: the tokenizer's own template for pairs.
    :param prompt: text before an encoder's query, where the model was saved with one.
    :param answer: of a decoder; None: its own classifier.
    :param pooling: of an encoder with ``modules``; None: the checkpoint's own classifier.
    :param modules: what follows the pooling.
    :param activation: what ``normalize`` reports of a logit, by torch's class name.
    :param max_length: tokens of a pair that the model was saved with, if it says so.
    :param lowercase: whether texts are put into lower case first.
    :param architectures: model classes that the catalog's recipe is of.
    :param settings: those of ``cutoff_layers`` and compression that it takes.
    """

    name: str
    family: str
    proof: str = ""
    template: PromptTemplate | ChatTemplate | None = None
    prompt: str | None = None
    answer: Answer | None = None
    pooling: Pooling | None = None
    modules: tuple[HeadModule, ...] = ()
    activation: str = "Sigmoid"
    max_length: int | None = None
    lowercase: bool = False
    architectures: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()

    @property
    def is_layerwise(self) -> bool:
        """Whether the model scores after several layers."""
        return "cutoff_layers" in self.settings

    def described(self) -> Iterator[tuple[str, str]]:
        """The recipe in words, for ``bge-rerank models``."""
        yield "recipe", self.name
        yield "proof", self.proof
        yield "family", self.family
        yield "texts", "the tokenizer's pair" if self.template is None else str(self.template)
        if self.prompt is not None:
            yield "prompt", repr(self.prompt)
        yield "logit", self._logit()
        yield "normalize", self.activation
        if self.max_length is not None:
            yield "max_length", str(self.max_length)

    def _logit(self) -> str:
        if self.answer is not None:
            minus = "" if self.answer.irrelevant is None else f" − {self.answer.irrelevant!r}"
            return f"of the token {self.answer.relevant!r}{minus}"
        if self.pooling is not None:
            return " → ".join([f"{self.pooling} pooling", *map(str, self.modules)])
        return "head of each layer" if self.is_layerwise else "the classifier's only label"


def _decoder(template: PromptTemplate, answer: Answer, kind: str) -> Recipe:
    # a conversion into a classifier reads the same texts
    classes = frozenset({f"{kind}ForCausalLM", f"{kind}ForSequenceClassification"})
    return Recipe("", "decoder", template=template, answer=answer, architectures=classes)


_RECIPES: Mapping[str, Recipe] = {
    "bge-reranker-v2-gemma": _decoder(templates.BGE, Answer("Yes"), "Gemma"),
    "bge-reranker-v2-minicpm-layerwise": Recipe(
        "",
        "layerwise",
        template=templates.BGE,
        architectures=frozenset({"LayerWiseMiniCPMForCausalLM"}),
        settings=frozenset({"cutoff_layers"}),
    ),
    "bge-reranker-v2.5-gemma2-lightweight": Recipe(
        "",
        "lightweight",
        template=templates.BGE_LIGHTWEIGHT,
        architectures=frozenset({"CostWiseGemmaForCausalLM"}),
        settings=frozenset(LAYER_SETTINGS),
    ),
    "qwen3-reranker": _decoder(templates.QWEN3, Answer("yes", "no"), "Qwen3"),
    "nemotron-rerank": Recipe(
        "",
        "bidirectional",
        template=templates.NEMOTRON,
        architectures=frozenset({"LlamaBidirectionalForSequenceClassification"}),
    ),
    "mxbai-rerank-v2": _decoder(templates.MXBAI_V2, Answer("1", "0"), "Qwen2"),
}
#: the catalog's recipes, for ``recipe=``
RECIPES = {name: replace(recipe, name=name) for name, recipe in _RECIPES.items()}
# their texts stand in a prompt that none of their files holds
_PROMPTED_CLASSIFIERS = RECIPES["nemotron-rerank"].architectures
_SAY_IT = f"If it was trained as one of the catalog's, say so: recipe= one of {', '.join(RECIPES)}"


def read_recipe(config: EngineConfig, checkpoint: Checkpoint) -> Recipe:
    """The first recipe that something proves: setting, saved modules, catalog, or classifier.

    :raises ConfigurationError: for a ``recipe`` that is not in the catalog, or not for this model.
    :raises UnsupportedModelError: if nothing proves one, saying what was looked for.
    :raises ModelLoadError: for a file that cannot be read.
    """
    if config.recipe is not None:
        return _named(config.recipe, checkpoint)
    files = ModuleFiles(checkpoint)
    if files.describe_scores:
        return _from_modules(files)
    for found, name in _names(config, checkpoint):
        recipe = RECIPES.get(_recipe_of(name) or "")
        if recipe is not None and checkpoint.architecture in recipe.architectures:
            return _proven(recipe, checkpoint, f"the catalog knows its {found}, {name!r}")
    if _is_classifier(checkpoint) and checkpoint.architecture not in _PROMPTED_CLASSIFIERS:
        return _classifier(checkpoint)
    raise UnsupportedModelError(
        f"{checkpoint.folder.name} is a {checkpoint.architecture} of type "
        f"{checkpoint.model_type!r}, and nothing proves how it scores a pair: {files.missing}; it "
        "is no …ForSequenceClassification of plain pairs; and the catalog knows no model of its "
        f"name and class. {_SAY_IT}"
    )


def _named(name: str, checkpoint: Checkpoint) -> Recipe:
    if name not in RECIPES:
        raise ConfigurationError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
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
    return checkpoint.architecture.endswith("ForSequenceClassification")


def _classifier(checkpoint: Checkpoint) -> Recipe:
    """The recipe of a ``…ForSequenceClassification``.

    A tokenizer with a chat template reads pairs through it, as sentence-transformers' `Transformer`
    does; so a reward model, whose template has no query and document, is refused.

    :raises UnsupportedModelError: if it has more labels than one, or a template of a chat.
    """
    template = None
    if has_chat_template(checkpoint):
        try:
            template = read_chat_template(checkpoint, None, {}, None)
        except ModelLoadError as error:
            raise UnsupportedModelError(
                f"{checkpoint.folder.name} is a {checkpoint.architecture} with a chat template "
                f"that is not for pairs of query and document: {error}. {_SAY_IT}"
            ) from error
    return Recipe(
        "sequence-classification",
        "decoder" if checkpoint.model_type in PACKED_DECODERS else "encoder",
        proof="config.json: a classifier of one label",
        template=template,
        activation=_classifier_activation(checkpoint),
    )


def _classifier_activation(checkpoint: Checkpoint) -> str:
    """What ``normalize`` reports of the one label's logit.

    :raises UnsupportedModelError: if there are more labels than one.
    """
    config = checkpoint.config
    # as transformers counts: those that have a name, else the number given, else 2
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
