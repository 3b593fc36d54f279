"""LoRA adapters, saved by peft itself, score as the models that peft merges."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, SMALL_MODERNBERT, edit_json, save_checkpoint, write_json
from paths import GOLDEN
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GemmaForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)
from typer.testing import CliRunner

from bge_rerank_integrations import ModelLoadError, RerankEngine, UnsupportedModelError
from bge_rerank_integrations.cli.app import app

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*save_embedding_layers",
    "ignore:.*tie_word_embeddings",
    "ignore:.*tied weights",
    "ignore:.*LoRA tensor.*have invalid shape",
    "ignore:.*is_gradient_checkpointing:FutureWarning",
)

QUERY = "what is a panda?"
TEXTS = ["The giant panda is a bear of China.", "hi", "a much longer text " * 12]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def scores(folder: Path | str, **settings: Any) -> list[float]:
    with RerankEngine(
        str(folder), device="cpu", dtype="float32", normalize=False, **settings
    ) as engine:
        return list(engine.score(QUERY, TEXTS))


def train(model: Any, **options: Any) -> Any:
    """What a training leaves: random products, and other heads and biases than the base's."""
    torch.manual_seed(5)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(**{"r": 4, "init_lora_weights": False, **options})
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                amount = 0.1 if "lora_" in name else 0.5
                parameter.add_(torch.randn_like(parameter) * amount)
    return adapted


def save_both(adapted: Any, base: str, tmp_path: Path) -> tuple[Path, Path]:
    """The adapter's folder, and that of the model with the adapter merged."""
    folder, merged = tmp_path / "adapter", tmp_path / "merged"
    adapted.save_pretrained(str(folder))
    adapted.merge_and_unload().save_pretrained(str(merged))
    for name in TOKENIZER_FILES:
        if (Path(base) / name).is_file():
            shutil.copy(Path(base) / name, merged / name)
    return folder, merged


def assert_equal_to_merged(folder: Path, merged: Path, base: str, **settings: Any) -> None:
    found = scores(folder, **settings)
    assert found == pytest.approx(scores(merged, **settings), abs=1e-5)
    if base:
        assert found != pytest.approx(scores(base, **settings), abs=1e-2)


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["query", "value"], "lora_alpha": 16},
    "regex": {"target_modules": r".*layer\.[01]\..*(key|intermediate\.dense)"},
    "all linear layers": {"target_modules": "all-linear"},
    "rank-stabilized": {"target_modules": ["query"], "use_rslora": True, "lora_alpha": 3},
    "patterns": {
        "target_modules": ["query", "value"],
        "rank_pattern": {"value": 2, r"layer.1.attention.self.query": 7},
        "alpha_pattern": {"value": 1, "^bert.encoder.layer.0.attention.self.query": 5},
    },
    "all biases": {"target_modules": ["query"], "bias": "all"},
    "biases of its layers": {"target_modules": ["query", "dense"], "bias": "lora_only"},
    "some layers": {"target_modules": ["query", "dense"], "layers_to_transform": [0, 2]},
    "excluded layers": {"target_modules": ["query", "dense"], "exclude_modules": ["output.dense"]},
    "magnitudes": {"target_modules": ["query", "dense"], "use_dora": True, "task_type": None},
    "its own biases": {"target_modules": ["query"], "lora_bias": True},
    "embeddings": {"target_modules": ["query", "word_embeddings"]},
    "modules that were trained": {
        "target_modules": ["query"],
        "modules_to_save": ["classifier", "pooler", "word_embeddings"],
    },
}


@pytest.mark.parametrize("case", CONFIGS)
def test_an_adapter_scores_as_the_merged_model(bert: str, tmp_path: Path, case: str) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(bert)
    adapted = train(base, **{"task_type": "SEQ_CLS", **CONFIGS[case]})
    folder, merged = save_both(adapted, bert, tmp_path)
    assert not (folder / "config.json").exists()
    assert_equal_to_merged(folder, merged, bert)


def test_an_adapter_of_bge_with_a_trained_head(xlmr: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(xlmr)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["query", "key", "value", "dense"])
    AutoTokenizer.from_pretrained(xlmr).save_pretrained(str(tmp_path / "adapter"))
    folder, merged = save_both(adapted, xlmr, tmp_path)
    assert_equal_to_merged(folder, merged, xlmr)


def test_a_head_of_one_label_on_a_base_without_one(tmp_path: Path) -> None:
    base = save_checkpoint(BertModel(BertConfig(**SMALL)), tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["query"])
    assert_equal_to_merged(*save_both(adapted, base, tmp_path), "")


def test_an_adapter_of_modernbert(tmp_path: Path) -> None:
    model = ModernBertForSequenceClassification(ModernBertConfig(**SMALL_MODERNBERT))
    base = save_checkpoint(model, tmp_path / "base")
    model.name_or_path = base
    adapted = train(model, task_type="SEQ_CLS", target_modules=["Wqkv", "Wo", "Wi"])
    assert_equal_to_merged(*save_both(adapted, base, tmp_path), base)


def test_an_adapter_of_layers_that_are_padded(distilbert: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(distilbert)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["q_lin", "lin1"])
    assert_equal_to_merged(*save_both(adapted, distilbert, tmp_path), distilbert)


def test_an_adapter_of_transposed_layers(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, num_labels=1)
    config.pad_token_id = 0
    model = GPT2ForSequenceClassification(config)
    base = save_checkpoint(model, tmp_path / "base")
    model.name_or_path = base
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}
    adapted = train(model, task_type="SEQ_CLS", **options)
    assert_equal_to_merged(*save_both(adapted, base, tmp_path), base)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], "all-linear"])
def test_an_adapter_of_gemma(tmp_path: Path, modules: Any) -> None:
    base = str(GOLDEN / "gemma")
    model = GemmaForCausalLM.from_pretrained(base)
    adapted = train(model, task_type="CAUSAL_LM", target_modules=modules)
    folder, merged = save_both(adapted, base, tmp_path)
    assert_equal_to_merged(folder, merged, base, recipe="bge-reranker-v2-gemma")


@pytest.mark.parametrize(
    "modules", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]], ids=str
)
def test_an_adapter_with_a_table_of_a_tied_model(tmp_path: Path, modules: list[str]) -> None:
    """peft trains one of the two, and the other stays what it was."""
    base = str(GOLDEN / "gemma")
    model = GemmaForCausalLM.from_pretrained(base)
    options = {"target_modules": ["q_proj"], "modules_to_save": modules}
    adapted = train(model, task_type="CAUSAL_LM", **options)
    folder, merged = save_both(adapted, base, tmp_path)
    assert_equal_to_merged(folder, merged, base, recipe="bge-reranker-v2-gemma")


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_a_product_in_a_tied_table_is_refused(tmp_path: Path, module: str) -> None:
    """The merged model would add it to both, the model before to one."""
    model = GemmaForCausalLM.from_pretrained(str(GOLDEN / "gemma"))
    adapted = train(model, task_type="CAUSAL_LM", target_modules=["q_proj", module])
    adapted.save_pretrained(str(tmp_path))
    with pytest.raises(UnsupportedModelError, match=rf"adapts .*{module}.* are tied"):
        scores(tmp_path, recipe="bge-reranker-v2-gemma")


def test_an_adapter_with_more_tokens_than_its_base(bert: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    model.resize_token_embeddings(310)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["query"])
    assert_equal_to_merged(*save_both(adapted, bert, tmp_path), bert)


class Tree(torch.nn.Module):
    """The modules that a checkpoint's names tell of, for models whose class is not at hand."""

    def __init__(self, tensors: dict[str, torch.Tensor], folder: str) -> None:
        super().__init__()
        self.name_or_path = folder
        for name, tensor in tensors.items():
            *path, module, _ = name.split(".")
            parent: torch.nn.Module = self
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, torch.nn.Module())
                parent = getattr(parent, part)
            leaf: torch.nn.Module = torch.nn.Module()
            if tensor.dim() == 2 and "embed" not in name:
                leaf = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
            leaf.weight = torch.nn.Parameter(tensor)
            parent.add_module(module, leaf)

    def forward(self) -> None:
        """Never run."""


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["linear_head"]},
        {"target_modules": ["o_proj", "up_proj", "linear_head"]},
    ],
)
@pytest.mark.parametrize("model", ["minicpm", "light"])
def test_an_adapter_of_layerwise_models(tmp_path: Path, options: Any, model: str) -> None:
    """FlagEmbedding's classes do not run here; their modules have the names of the tensors."""
    base = GOLDEN / model
    adapted = train(Tree(load_file(base / "model.safetensors"), str(base)), **options)
    folder, merged = tmp_path / "adapter", Path(shutil.copytree(base, tmp_path / "merged"))
    adapted.save_pretrained(str(folder))
    # as with FlagEmbedding's classes: no name of a class, but a task
    names = {"base_model_name_or_path": str(base), "auto_mapping": None, "task_type": "CAUSAL_LM"}
    edit_json(folder / "adapter_config.json", **names)
    tensors = adapted.merge_and_unload().state_dict()
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    assert_equal_to_merged(folder, merged, str(base))


def change_adapter(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval()


OF_XLMR = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"], "r": 4}


def test_an_adapter_that_sentence_transformers_saved(xlmr: str, tmp_path: Path) -> None:
    model = CrossEncoder(xlmr, device="cpu", activation_fn=torch.nn.Identity())
    model.add_adapter(peft.LoraConfig(**OF_XLMR, init_lora_weights=False))
    change_adapter(model)
    expected = model.predict([(QUERY, text) for text in TEXTS]).tolist()
    model.save_pretrained(str(tmp_path), create_model_card=False)
    assert not (tmp_path / "config.json").exists()
    assert scores(tmp_path) == pytest.approx(expected, abs=1e-5)


def test_an_adapter_that_transformers_saved(xlmr: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(xlmr)
    config = peft.LoraConfig(**OF_XLMR, init_lora_weights=False, modules_to_save=["classifier"])
    model.add_adapter(config)
    change_adapter(model)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(xlmr)
    batch = tokenizer([QUERY] * 3, TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits.view(-1).tolist()
    assert scores(tmp_path) == pytest.approx(expected, abs=1e-5)


def test_an_adapter_that_flagembeddings_trainer_saved(tmp_path: Path) -> None:
    """Its `AbsRerankerModel.save` gives the whole model's state to peft's `save_pretrained`."""
    base = str(GOLDEN / "gemma")
    model = GemmaForCausalLM.from_pretrained(base)
    options = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj", "up_proj"]}
    adapted = train(model, **options)
    state = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    adapted.save_pretrained(str(tmp_path / "theirs"), state_dict=state)
    _, merged = save_both(adapted, base, tmp_path)
    assert_equal_to_merged(tmp_path / "theirs", merged, base, recipe="bge-reranker-v2-gemma")


@pytest.fixture
def both(bert: str, tmp_path: Path) -> tuple[Path, Path]:
    """An adapter's folder and the merged one's."""
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["query"])
    return save_both(adapted, bert, tmp_path)


def test_the_bases_weights_may_lie_beside_the_adapter(
    both: tuple[Path, Path], bert: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, merged = both
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    edit_json(folder / "adapter_config.json", base_model_name_or_path="owner/not-here")
    caplog.set_level(logging.INFO)
    assert scores(folder) == pytest.approx(scores(merged), abs=1e-5)
    assert "the weights beside the LoRA adapter are its base" in caplog.text


def test_only_the_bases_config_lies_beside_the_adapter(both: tuple[Path, Path], bert: str) -> None:
    folder, merged = both
    shutil.copy(Path(bert) / "config.json", folder)
    assert scores(folder) == pytest.approx(scores(merged), abs=1e-5)


def test_a_base_with_a_relative_path(
    both: tuple[Path, Path], bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, merged = both
    shutil.copytree(bert, folder.parent / "base")
    expected = pytest.approx(scores(merged), abs=1e-5)
    edit_json(folder / "adapter_config.json", base_model_name_or_path="../base")
    assert scores(folder) == expected
    edit_json(folder / "adapter_config.json", base_model_name_or_path="./base")
    monkeypatch.chdir(folder.parent)
    assert scores("adapter") == expected


def test_a_base_in_the_hubs_cache(both: tuple[Path, Path], bert: str) -> None:
    folder, merged = both
    model, sha = folder.parent / "models--me--base", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(bert, model / "snapshots" / sha)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(sha)
    cached = {"cache_folder": str(folder.parent), "local_files_only": True}
    for revision in (None, sha):
        edit_json(
            folder / "adapter_config.json", base_model_name_or_path="me/base", revision=revision
        )
        assert scores(folder, **cached) == pytest.approx(scores(merged), abs=1e-5)


def test_an_adapter_of_a_decoder_with_a_trained_head(tmp_path: Path) -> None:
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
    config = Qwen3Config(
        **sizes, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, num_labels=1
    )
    config.pad_token_id = 0
    model = Qwen3ForSequenceClassification(config)
    base = save_checkpoint(model, tmp_path / "base")
    model.name_or_path = base
    adapted = train(model, task_type="SEQ_CLS", target_modules="all-linear")
    folder, merged = save_both(adapted, base, tmp_path)
    assert_equal_to_merged(folder, merged, base)
    shutil.copytree(base, folder, dirs_exist_ok=True)
    assert_equal_to_merged(folder, merged, base)


def test_an_adapter_of_the_built_in_model(tmp_path: Path) -> None:
    with RerankEngine("tiny", device="cpu") as engine:
        assert engine.config.model == "tiny"
    built_in = Path(__import__("bge_rerank_integrations").__file__).parent / "models" / "tiny"
    model = AutoModelForSequenceClassification.from_pretrained(built_in, dtype=torch.float32)
    adapted = train(model, task_type="SEQ_CLS", target_modules=["query"])
    folder, merged = save_both(adapted, str(built_in), tmp_path)
    edit_json(folder / "adapter_config.json", base_model_name_or_path="tiny")
    assert_equal_to_merged(folder, merged, "tiny")


def test_a_flag_for_transposed_layers_says_nothing_of_others(both: tuple[Path, Path]) -> None:
    """peft sets it to false for them."""
    folder, merged = both
    edit_json(folder / "adapter_config.json", fan_in_fan_out=True)
    assert scores(folder) == pytest.approx(scores(merged), abs=1e-5)


def test_the_command_shows_the_base_and_what_is_obeyed(both: tuple[Path, Path], bert: str) -> None:
    done = CliRunner().invoke(app, ["models", str(both[0])])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert f"adapter_config.json: base_model_name_or_path\t{bert!r}" in lines
    assert "adapter_config.json: r\t4" in lines
    assert "config.json: hidden_size\t32" in lines
    assert "tokenizer.json\tthe tokenizer" in lines
    assert "recipe\tsequence-classification" in lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"use_qalora": True}, "use_qalora True"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.gate"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"a_key_of_tomorrow": "on"}, "a_key_of_tomorrow 'on'"),
    ],
)
def test_a_key_that_is_not_run_is_refused(
    both: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    edit_json(both[0] / "adapter_config.json", **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        scores(both[0])


def test_every_key_of_peft_is_known_or_refused(both: tuple[Path, Path]) -> None:
    """Keys that peft writes with their defaults change nothing."""
    written = json.loads((both[0] / "adapter_config.json").read_text("utf-8"))
    assert len(written) > 30
    assert scores(both[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": "(query"},
        {"rank_pattern": {"(": 4}},
        {"alpha_pattern": [1]},
        {"lora_alpha": None},
        {"lora_alpha": "much"},
        {"layers_to_transform": "0"},
        {"target_modules": 3},
        {"base_model_name_or_path": ["a", "b"]},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_named(both: tuple[Path, Path], changes: dict[str, Any]) -> None:
    edit_json(both[0] / "adapter_config.json", **changes)
    with pytest.raises(ModelLoadError, match=r"adapter_config\.json"):
        scores(both[0])


def rename(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({change(name): tensor for name, tensor in tensors.items()}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: name.replace("bert.encoder", "bert.decoder"), "is no module of the base"),
        (lambda name: name.removeprefix("base_model."), "does not begin with base_model.model"),
        (lambda name: name.replace("lora_B", "lora_C"), "none of the parts of a LoRA layer"),
        (lambda name: name.replace("self.query", "self.key"), "none of the target_modules"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    both: tuple[Path, Path], change: Callable[[str], str], message: str
) -> None:
    rename(both[0], change)
    with pytest.raises(ModelLoadError, match=message):
        scores(both[0])


def test_a_base_that_cannot_be_opened_is_named(both: tuple[Path, Path]) -> None:
    folder = both[0]
    config = folder / "adapter_config.json"
    for base, message in (
        ("/gone/base", r"is a LoRA adapter, and its base '/gone/base' cannot be opened"),
        ("owner/gone", r"its base 'owner/gone' cannot be opened: .*not in the local cache"),
        (None, r"names no base: put the base's id or folder into adapter_config\.json"),
        (str(folder), "which is an adapter too"),
    ):
        edit_json(config, base_model_name_or_path=base)
        with pytest.raises(ModelLoadError, match=message):
            scores(folder)


def test_an_adapter_whose_weights_are_pickled(both: tuple[Path, Path]) -> None:
    weights = both[0] / "adapter_model.safetensors"
    torch.save(load_file(weights), both[0] / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"found adapter_model\.bin\. `bge-rerank convert"):
        scores(both[0])
    write_json(both[0] / "adapter_config.json", {"peft_type": "LORA"})
    (both[0] / "adapter_model.bin").unlink()
    with pytest.raises(ModelLoadError, match="found no weights"):
        scores(both[0])
