"""A recipe is proven, by what comes first, or the model is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, edit_json, write_json
from paths import GOLDEN
from safetensors.torch import load_file, save_file
from saved_models import SPECIAL, dense_head, save_base, save_classifier, save_decoder, save_modules
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from typer.testing import CliRunner

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint
from bge_rerank_integrations.engine.loading.proofs import read_recipe
from bge_rerank_integrations.engine.loading.recipes import RECIPES, Recipe

DECODER = {**SMALL, **SPECIAL, "num_key_value_heads": 2}


def recipe_of(folder: Path | str, **settings: Any) -> Recipe:
    config = EngineConfig(str(folder), **settings)
    return read_recipe(config, open_checkpoint(config))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with modules, as sentence-transformers saved it."""
    folder = tmp_path_factory.mktemp("modules") / "saved"
    return Path(save_modules(BertConfig(**SMALL), folder, dense_head("mean")))


@pytest.fixture(scope="module")
def saved_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generator") / "saved"
    return Path(save_decoder(Qwen2Config(**DECODER), folder, (17, 18)))


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def decoder(saved_decoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_decoder, tmp_path / "model"))


def edit_modules(folder: Path, number: int, **changes: Any) -> None:
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[number].update(changes)
    write_json(folder / "modules.json", modules)


@pytest.mark.parametrize(
    "config",
    [
        GemmaConfig(**DECODER, head_dim=8),
        Qwen2Config(**DECODER),
        Qwen3Config(**DECODER, head_dim=8),
        LlamaConfig(**DECODER),
        MistralConfig(**DECODER),
    ],
    ids=lambda config: config.model_type,
)
def test_a_chat_model_is_refused(config: Any, tmp_path: Path) -> None:
    folder = save_base(config, tmp_path / "chat", AutoModelForCausalLM)
    with pytest.raises(UnsupportedModelError) as caught:
        RerankEngine(folder, device="cpu")
    said = str(caught.value)
    assert f"chat is a {AutoModelForCausalLM._model_mapping[type(config)].__name__} of" in said
    assert "nothing proves how it scores a pair: it has no modules.json" in said
    assert f"recipe= one of {', '.join(RECIPES)}" in said


def test_the_setting_is_the_first_proof(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / "model"))
    edit_json(folder / "config.json", _name_or_path="")
    recipe = recipe_of(folder, recipe="bge-reranker-v2-gemma")
    assert (recipe.name, recipe.proof) == ("bge-reranker-v2-gemma", "the setting recipe")
    settings: Any = {"device": "cpu", "dtype": "float32"}
    with (
        RerankEngine(str(folder), recipe="bge-reranker-v2-gemma", **settings) as named,
        RerankEngine(str(GOLDEN / "gemma"), **settings) as known,
    ):
        assert named.score("q", ["a", "b"]) == known.score("q", ["a", "b"])


def test_the_setting_comes_before_saved_modules(saved_decoder: Path) -> None:
    assert recipe_of(saved_decoder).name == "sentence-transformers text-generation"
    assert recipe_of(saved_decoder, recipe="qwen3-reranker").name == "qwen3-reranker"


def test_saved_modules_come_before_a_name(decoder: Path) -> None:
    edit_json(decoder / "config.json", _name_or_path="mixedbread-ai/mxbai-rerank-base-v2")
    assert recipe_of(decoder).proof == "modules.json of sentence-transformers"
    (decoder / "modules.json").unlink()
    assert recipe_of(decoder).name == "mxbai-rerank-v2"


@pytest.mark.parametrize(
    ("recipe", "model", "message"),
    [
        ("bge", "gemma", "recipe must be one of bge-reranker-v2-gemma, .*got 'bge'"),
        ("qwen3-reranker", "xlmr", "is for Qwen3ForCausalLM, .* and xlmr is a XLMRoberta"),
        ("bge-reranker-v2-minicpm-layerwise", "gemma", "is for LayerWiseMiniCPMForCausalLM, and"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(recipe: str, model: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RerankEngine(str(GOLDEN / model), device="cpu", recipe=recipe)


@pytest.mark.parametrize(
    ("folder", "saved_name", "proof"),
    [
        ("bge-reranker-v2-gemma", "", "folder's name, 'bge-reranker-v2-gemma'"),
        (
            "models--BAAI--bge-reranker-v2-gemma/snapshots/abc",
            "",
            "folder in the hub's cache, 'BAAI/bge-reranker-v2-gemma'",
        ),
        ("model", "BAAI/bge-reranker-v2-gemma", "_name_or_path, 'BAAI/bge-reranker-v2-gemma'"),
        ("model", "/data/bge-reranker-v2-gemma", "_name_or_path, '/data/bge-reranker-v2-gemma'"),
    ],
)
def test_a_name_of_the_catalog_is_a_proof(
    folder: str, saved_name: str, proof: str, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / folder))
    edit_json(copied / "config.json", _name_or_path=saved_name)
    recipe = recipe_of(copied)
    assert recipe.name == "bge-reranker-v2-gemma"
    assert recipe.proof == f"the catalog knows its {proof}"


def test_a_hub_id_of_the_catalog_is_a_proof(tmp_path: Path, monkeypatch: Any) -> None:
    folder = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / "model"))
    edit_json(folder / "config.json", _name_or_path="")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert recipe_of("BAAI/bge-reranker-v2-gemma").proof.startswith("the catalog knows its hub id")
    with pytest.raises(UnsupportedModelError, match="nothing proves"):
        recipe_of("someone/bge-reranker-v2-gemma")


@pytest.mark.parametrize(
    ("folder", "saved_name", "architecture"),
    [
        ("bge-reranker-v2-gemma", "", "Qwen3ForCausalLM"),
        ("model", "someone/bge-reranker-v2-gemma", "GemmaForCausalLM"),
        ("models--someone--bge-reranker-v2-gemma/snapshots/abc", "", "GemmaForCausalLM"),
        ("gemma", "google/gemma-2b", "GemmaForCausalLM"),
    ],
)
def test_a_name_that_is_not_the_catalogs_proves_nothing(
    folder: str, saved_name: str, architecture: str, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / folder))
    edit_json(copied / "config.json", _name_or_path=saved_name, architectures=[architecture])
    with pytest.raises(UnsupportedModelError, match="the catalog knows no model of its name"):
        recipe_of(copied)


def test_the_modules_of_an_embedding_model_prove_nothing(copy: Path) -> None:
    edit_json(copy / "config_sentence_transformers.json", model_type="SentenceTransformer")
    with pytest.raises(UnsupportedModelError, match=r"modules\.json is of a Sentence"):
        RerankEngine(str(copy), device="cpu")


def test_a_saved_classifier_of_two_labels_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(BertConfig(**SMALL, num_labels=2), tmp_path / "model")
    with pytest.raises(UnsupportedModelError, match="classifies into 2 labels"):
        RerankEngine(folder, device="cpu")


@pytest.mark.parametrize(
    ("saved_as", "activation"),
    [
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "Identity",
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, "Tanh"),
        ({}, "Sigmoid"),
    ],
)
def test_a_classifiers_config_may_name_its_activation(
    saved_as: dict[str, Any], activation: str, bert: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    edit_json(folder / "config.json", **saved_as)
    assert recipe_of(folder).activation == activation
    with RerankEngine(str(folder), device="cpu") as engine:
        (score,) = scores = engine.score("q", ["d"])
    expected = getattr(torch.nn, activation)()(torch.tensor(scores.logits[0]).double()).item()
    assert score == pytest.approx(expected, abs=1e-9)


def test_a_model_that_only_its_own_code_can_run_is_refused(bert: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    code = {"AutoModelForSequenceClassification": "modeling.Model"}
    edit_json(folder / "config.json", model_type="new", auto_map=code)
    with pytest.raises(UnsupportedModelError, match=r"'new', which transformers does not have but"):
        RerankEngine(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (2, {"type": "evil.Module"}, r"modules\.json has a module 'evil\.Module'; known are"),
        (2, {"type": "sentence_transformers.models.LSTM"}, r"a module 'sentence_transformers\.mod"),
        (1, {"type": "sentence_transformers.models.LayerNorm"}, "LayerNorm where Pooling must"),
        (2, {"type": "sentence_transformers.models.Pooling"}, "Pooling behind Pooling"),
        (0, {"type": "sentence_transformers.models.Dense"}, "Dense in '' as its first module"),
        (0, {"path": "0_Transformer"}, "Transformer in '0_Transformer' as its first module"),
        (2, {"type": "evil.models.Dense"}, r"a module 'evil\.models\.Dense'; known are"),
        (0, {"type": "evil.models.Transformer"}, r"a module 'evil\.models\.Transformer'"),
    ],
)
def test_modules_that_are_not_run_are_named(
    copy: Path, number: int, changes: dict[str, str], message: str
) -> None:
    edit_modules(copy, number, **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        RerankEngine(str(copy), device="cpu")


@pytest.mark.parametrize("path", ["../2_Dense", "/2_Dense", "2_Dense/../..", 3])
def test_a_module_in_another_folder_is_refused(copy: Path, path: Any) -> None:
    edit_modules(copy, 2, path=path)
    with pytest.raises(ModelLoadError, match=r"model/modules\.json names the folder"):
        RerankEngine(str(copy), device="cpu")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling by 'max'"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pooling by"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "the task 'fill-mask'"),
        *(
            (
                "sentence_bert_config.json",
                {"modality_config": {"text": {"method": method, "method_output_name": output}}},
                rf"text read by \('{method}', ",
            )
            for method, output in [
                ("encode", "last_hidden_state"),
                ("forward", "pooler_output"),
                ("forward", ["last_hidden_state", "pooler_output"]),
            ]
        ),
        (
            "sentence_bert_config.json",
            {"modality_config": {"image": {}}},
            r"model/sentence_bert_config\.json has inputs of image alone",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"add_special_tokens": False}}},
            "the setting 'add_special_tokens'",
        ),
        (
            "config_sentence_transformers.json",
            {"activation_fn": "evil.Activation"},
            r"config_sentence_transformers\.json names the activation 'evil\.Activation'",
        ),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.functional.evil"},
            r"model/2_Dense/config\.json names the activation",
        ),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "reads 'token_embed"),
        ("5_Dense/config.json", {"module_output_name": "embedding"}, "end in 'embedding' of 1"),
    ],
)
def test_settings_of_modules_that_are_not_run_are_named(
    copy: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    edit_json(copy / file, **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        RerankEngine(str(copy), device="cpu")


@pytest.mark.parametrize(
    "file",
    ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
     "1_Pooling/config.json", "2_Dense/config.json", "tokenizer_config.json"],
)  # fmt: skip
@pytest.mark.parametrize("content", ["{", '"text"'])
def test_a_file_that_is_not_json_is_named(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content)
    with pytest.raises(ModelLoadError, match=f"{file} is not readable"):
        RerankEngine(str(copy), device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"modality_config": ["text"]},
        {"modality_config": {"text": "forward"}},
        {"processing_kwargs": "none"},
        {"processing_kwargs": {"text": 3}},
        {"processor_kwargs": [512]},
    ],
)
def test_a_setting_of_another_type_is_named(copy: Path, changes: dict[str, Any]) -> None:
    edit_json(copy / "sentence_bert_config.json", **changes)
    with pytest.raises(ModelLoadError, match=r"sentence_bert_config\.json: \w+ must be a JSON"):
        recipe_of(copy)


def test_a_missing_module_is_named(copy: Path) -> None:
    (copy / "2_Dense" / "model.safetensors").rename(copy / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"model/2_Dense: weights must be safetensors.*\.bin"):
        RerankEngine(str(copy), device="cpu")
    shutil.rmtree(copy / "2_Dense")
    with pytest.raises(ModelLoadError, match=r"2_Dense/config\.json: in_features must be 32"):
        RerankEngine(str(copy), device="cpu")
    shutil.rmtree(copy / "1_Pooling")
    with pytest.raises(ModelLoadError, match=r"there is no config\.json in .*1_Pooling"):
        RerankEngine(str(copy), device="cpu")


def test_a_dense_of_another_width_is_named(copy: Path) -> None:
    edit_json(copy / "2_Dense" / "config.json", in_features=48)
    with pytest.raises(ModelLoadError, match=r"2_Dense/config\.json: in_features must be 32, as"):
        RerankEngine(str(copy), device="cpu")
    edit_json(copy / "2_Dense" / "config.json", in_features=32)
    weights = load_file(copy / "2_Dense" / "model.safetensors")
    wide = {**weights, "linear.weight": torch.zeros(32, 48)}
    save_file(wide, copy / "2_Dense" / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"2_Dense: linear\.weight is of another shape"):
        RerankEngine(str(copy), device="cpu")


def test_a_prompt_without_a_text_is_named(copy: Path) -> None:
    edit_json(copy / "config_sentence_transformers.json", default_prompt_name="ask")
    with pytest.raises(ModelLoadError, match="names the prompt 'ask', and has none of that name"):
        RerankEngine(str(copy), device="cpu")


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{{ messages[0].nothing.at_all }}", ModelLoadError, "cannot be rendered: UndefinedError"),
        ("{% for %}", ModelLoadError, "cannot be rendered: TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", ModelLoadError, "cannot be rendered: SecurityError"),
        ("{{ messages[0].content }}", UnsupportedModelError, "render messages of role document"),
        ("{{ messages[1].content }}", UnsupportedModelError, "render messages of role query"),
    ],
)
def test_a_chat_template_that_fails_is_named(
    decoder: Path, template: str, error: type[Exception], message: str
) -> None:
    (decoder / "chat_template.jinja").write_text(template)
    with pytest.raises(error, match=rf"model/chat_template\.jinja .*{message}"):
        RerankEngine(str(decoder), device="cpu")


def test_a_chat_template_may_stand_with_the_tokenizer(decoder: Path) -> None:
    settings: Any = {"device": "cpu", "dtype": "float32"}
    with RerankEngine(str(decoder), **settings) as engine:
        expected = engine.score("q", ["d"])
    source = (decoder / "chat_template.jinja").read_text("utf-8")
    (decoder / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match=r"neither chat_template\.jinja nor"):
        RerankEngine(str(decoder), **settings)
    for given in (source, [{"name": "default", "template": source}]):
        edit_json(decoder / "tokenizer_config.json", chat_template=given)
        with RerankEngine(str(decoder), **settings) as engine:
            assert engine.score("q", ["d"]) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"true_token_id": 300},
        {"true_token_id": None},
        {"false_token_id": -1},
        {"false_token_id": "no"},
    ],
)
def test_an_answer_outside_the_vocabulary_is_named(decoder: Path, changes: dict[str, Any]) -> None:
    edit_json(decoder / "1_LogitScore" / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=r"1_LogitScore/config\.json: .* vocabulary of 300"):
        RerankEngine(str(decoder), device="cpu")


def test_a_text_generator_needs_one_module_more(decoder: Path) -> None:
    modules = json.loads((decoder / "modules.json").read_text("utf-8"))
    write_json(decoder / "modules.json", modules[:1])
    with pytest.raises(UnsupportedModelError, match="has Transformer for the task 'text-gen"):
        RerankEngine(str(decoder), device="cpu")
    dense = {**modules[1], "type": "sentence_transformers.models.Dense"}
    write_json(decoder / "modules.json", [modules[0], dense])
    with pytest.raises(UnsupportedModelError, match="Dense behind a text generator"):
        RerankEngine(str(decoder), device="cpu")


def test_a_tied_model_reads_its_answers_from_the_embeddings(decoder: Path) -> None:
    settings: Any = {"device": "cpu", "dtype": "float32"}
    weights = load_file(decoder / "model.safetensors")
    with RerankEngine(str(decoder), **settings) as engine:
        untied = engine.score("q", ["d"])
    edit_json(decoder / "config.json", tie_word_embeddings=True)
    with RerankEngine(str(decoder), **settings) as engine:
        tied = engine.score("q", ["d"])
    assert tied != untied
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, decoder / "model.safetensors", metadata={"format": "pt"})
    edit_json(decoder / "config.json", tie_word_embeddings=False)
    with RerankEngine(str(decoder), **settings) as engine:
        assert engine.score("q", ["d"]) == tied


@pytest.mark.parametrize("setting", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_change_with_a_batch_are_refused(
    decoder: Path, setting: str, kind: str
) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope = {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4, **factors}
    edit_json(decoder / "config.json", rope_parameters=None)
    edit_json(decoder / "config.json", **{setting: rope})
    with pytest.raises(UnsupportedModelError, match=f"rotary embeddings of type '{kind}'"):
        RerankEngine(str(decoder), device="cpu")


def test_a_pooling_that_leaves_the_prompt_out_is_refused_with_a_prompt(copy: Path) -> None:
    edit_json(copy / "1_Pooling" / "config.json", include_prompt=False)
    RerankEngine(str(copy), device="cpu").close()
    edit_json(
        copy / "config_sentence_transformers.json",
        default_prompt_name="ask",
        prompts={"ask": "find: "},
    )
    with pytest.raises(UnsupportedModelError, match="pooling without the prompt"):
        RerankEngine(str(copy), device="cpu")


def test_a_prompt_must_leave_room_for_a_query(copy: Path) -> None:
    edit_json(
        copy / "config_sentence_transformers.json",
        default_prompt_name="ask",
        prompts={"ask": "find " * 30},
    )
    with pytest.raises(ConfigurationError, match="leaves 96 tokens for prompt and query, and the"):
        RerankEngine(str(copy), device="cpu")


def test_layers_that_would_be_packed_wrongly_are_refused(decoder: Path) -> None:
    edit_json(decoder / "config.json", model_type="gemma2")
    with pytest.raises(UnsupportedModelError, match="decoder of type 'gemma2'; those that can be"):
        RerankEngine(str(decoder), device="cpu")


def test_the_command_shows_a_recipe_and_its_proof(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    # weights are not read
    (folder / "model.safetensors").unlink()
    done = CliRunner().invoke(app, ["models", str(folder)])
    assert done.exit_code == 0, done.output
    shown = dict(line.split("\t") for line in done.stdout.splitlines())
    assert shown["recipe"] == "sentence-transformers feature-extraction"
    assert shown["proof"] == "modules.json of sentence-transformers"
    assert shown["logit"].startswith("mean pooling → Dense(32, 32, GELU) → LayerNorm(32) → ")
    assert (shown["normalize"], shown["max_length"]) == ("Sigmoid", "128")
    done = CliRunner().invoke(app, ["models", str(GOLDEN / "light"), "--recipe", "nonsense"])
    assert done.exit_code != 0
    assert "recipe must be one of" in done.output


def test_the_command_shows_the_recipes_of_the_catalog() -> None:
    for model, logit in [("gemma", "of the token 'Yes'"), ("light", "head of each layer")]:
        done = CliRunner().invoke(app, ["models", str(GOLDEN / model)])
        shown = dict(line.split("\t") for line in done.stdout.splitlines())
        assert shown["logit"] == logit
        assert "_name_or_path" in shown["proof"]


def test_a_checkpoint_without_a_recipe_is_refused_by_the_command(tmp_path: Path) -> None:
    folder = save_base(LlamaConfig(**DECODER), tmp_path / "chat", AutoModelForCausalLM)
    done = CliRunner().invoke(app, ["models", folder])
    assert done.exit_code != 0
    assert "nothing proves" in done.output.replace("\n", " ")
