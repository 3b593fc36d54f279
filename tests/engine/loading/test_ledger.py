"""The ledger's tables against transformers: every obeyed key scores as it does, or is refused."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import (
    SMALL,
    SMALL_MODERNBERT,
    edit_json,
    save_byte_level_tokenizer,
    save_random,
    write_json,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    LlamaConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from bge_rerank_integrations import EngineConfig, RerankEngine, UnsupportedModelError
from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint
from bge_rerank_integrations.engine.loading.ledger import CONFIG, FILES, TOKENIZER_CONFIG
from bge_rerank_integrations.engine.loading.model import obeyed
from bge_rerank_integrations.engine.loading.proofs import read_recipe

EXACT = 1e-5
LONG = "who? a bear of China, and where does it live? " * 9
PAIRS = [
    ("What is a Panda?", "A bear of China"),
    ("café 熊猫x", "naïve 猫猫 bears [SEP] eat"),
    (" two words", " <new> token <old>x and [MASK] [NEW]y"),
    ("long", LONG),
]


def engine_logits(folder: Path) -> list[float]:
    with RerankEngine(str(folder), dtype="float32", device="cpu", normalize=False) as engine:
        return list(engine.score_pairs(PAIRS))


def transformers_logits(folder: Path, limit: int = 128) -> list[float]:
    """One pair at a time, cut as the tokenizer was saved to cut."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    length = min(tokenizer.model_max_length, limit)
    logits = []
    for pair in PAIRS:
        inputs = tokenizer(*pair, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            logits.append(model(**inputs).logits.item())
    return logits


def save_bert(folder: Path, **settings: Any) -> Path:
    save_random(BertConfig(**SMALL, num_labels=1), folder)
    # transformers 5 takes a generic class for one without token types
    names = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "model_input_names": names, **settings},
    )
    return folder


def save_roberta(folder: Path, **settings: Any) -> Path:
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = RobertaConfig(**{**SMALL, "vocab_size": 400}, num_labels=1, **special)
    save_random(config, folder)
    texts = [f"{query} {document}" for query, document in PAIRS]
    save_byte_level_tokenizer(folder, texts * 5, 390)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<|im_end|>", "<|im_start|>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"cls_token": "<|im_start|>", "sep_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    ends_of = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "RobertaTokenizer",
            "pad_token": "<|endoftext|>",
            "mask_token": "<|endoftext|>",
            **named,
            **ends_of,
            **settings,
        },
    )
    return folder


NEW = {"content": "<new>", "special": False, "normalized": False}
# what is written into tokenizer_config.json, by the key that it tries
OBEYED: Mapping[str, Mapping[str, Any]] = {
    "tokenizer_class": {"tokenizer_class": "BertTokenizerFast"},
    "model_input_names": {"model_input_names": ["input_ids", "attention_mask"]},
    "do_lower_case": {"do_lower_case": False},
    "strip_accents": {"strip_accents": False},
    "tokenize_chinese_chars": {"tokenize_chinese_chars": False},
    "added_tokens_decoder": {"added_tokens_decoder": {"299": NEW}},
    "additional_special_tokens": {"additional_special_tokens": ["<new>"]},
    "extra_special_tokens": {"extra_special_tokens": ["<new>", "[NEW]"]},
    "model_specific_special_tokens": {"extra_special_tokens": {"new_token": "<new>"}},
    "split_special_tokens": {"split_special_tokens": True},
    "truncation_side": {"truncation_side": "left"},
    "model_max_length": {"model_max_length": 40},
    "max_len": {"max_len": 40},
    "mask_token": {"mask_token": {"content": "<new>", "lstrip": True, "__type": "AddedToken"}},
    "pad_token": {"pad_token": "[NEW]"},
    "bos_token": {"bos_token": "<new>"},
    "eos_token": {"eos_token": "<old>"},
}


@pytest.mark.parametrize("key", OBEYED)
def test_a_key_of_the_tokenizer_is_obeyed(key: str, tmp_path: Path) -> None:
    plain = save_bert(tmp_path / "plain")
    folder = save_bert(tmp_path / "model", **OBEYED[key])
    expected = transformers_logits(folder)
    np.testing.assert_allclose(engine_logits(folder), expected, rtol=0, atol=EXACT)
    if key not in ("tokenizer_class", "pad_token"):
        assert np.abs(np.subtract(engine_logits(plain), expected)).max() > 1e-3


@pytest.mark.parametrize("has_space", [True, False, None])
def test_a_prefix_space_is_obeyed(has_space: bool | None, tmp_path: Path) -> None:
    given = {} if has_space is None else {"add_prefix_space": has_space}
    folder = save_roberta(tmp_path, **given)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=not has_space)
    tokenizer.save(str(folder / "tokenizer.json"))
    expected = transformers_logits(folder)
    np.testing.assert_allclose(engine_logits(folder), expected, rtol=0, atol=EXACT)


def test_older_files_have_special_and_added_tokens(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    before = engine_logits(folder)
    write_json(folder / "added_tokens.json", {"<new>": 299, "[NEW]": 300})
    write_json(folder / "special_tokens_map.json", {"mask_token": "[MASK]", "eos_token": "<old>"})
    edit_json(folder / "config.json", vocab_size=300)
    after = engine_logits(folder)
    np.testing.assert_allclose(after, transformers_logits(folder), rtol=0, atol=EXACT)
    assert after != before
    # where the newer file has all tokens, transformers leaves the older ones unread
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={})
    np.testing.assert_allclose(engine_logits(folder), before, rtol=0, atol=EXACT)
    np.testing.assert_allclose(before, transformers_logits(folder), rtol=0, atol=EXACT)


def test_a_side_saved_in_tokenizer_json_is_obeyed(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(30, direction="left")
    tokenizer.enable_padding(length=90)
    tokenizer.save(str(folder / "tokenizer.json"))
    peer = AutoTokenizer.from_pretrained(folder)
    assert peer.truncation_side == "left"
    np.testing.assert_allclose(
        engine_logits(folder), transformers_logits(folder), rtol=0, atol=EXACT
    )
    with RerankEngine(str(folder), dtype="float32", device="cpu", normalize=False) as engine:
        cut = engine.score_pairs(PAIRS, long_documents="truncate")
        assert cut[-1] != engine.score_pairs(PAIRS)[-1]


CONTRADICTIONS: Mapping[str, tuple[str, Any]] = {
    "cls_token": ("BertTokenizer", "[PAD]"),
    "sep_token": ("BertTokenizer", "[PAD]"),
    "unk_token": ("BertTokenizer", "[PAD]"),
    "keep_accents": ("AlbertTokenizer", True),
    "split_by_punct": ("DebertaV2Tokenizer", True),
    "add_bos_token": ("LlamaTokenizer", True),
    "add_eos_token": ("LlamaTokenizer", True),
    "src_lang": ("MBartTokenizer", "de_DE"),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_files_that_contradict_each_other_are_refused(key: str, tmp_path: Path) -> None:
    kind, value = CONTRADICTIONS[key]
    ends = {"bos_token": "[CLS]", "eos_token": "[UNK]"} if kind == "LlamaTokenizer" else {}
    folder = save_bert(tmp_path, **{"tokenizer_class": kind, key: value}, **ends)
    if key == "add_bos_token":
        edit_json(folder / "tokenizer_config.json", bos_token="[UNK]")
    if key == "keep_accents":
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match=f"tokenizer_config.json says {key} .*, and"):
        engine_logits(folder)


@pytest.mark.parametrize("kind", ["AlbertTokenizer", "BertTokenizer"])
def test_case_that_tokenizer_json_contradicts_is_refused(kind: str, tmp_path: Path) -> None:
    folder = save_bert(tmp_path, tokenizer_class=kind, do_lower_case=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="says do_lower_case False, and"):
        engine_logits(folder)


def test_a_space_that_tokenizer_json_contradicts_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, tokenizer_class="XLMRobertaTokenizer", add_prefix_space=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="begins texts with one"):
        engine_logits(folder)


def test_a_tokenizer_of_its_own_class_is_refused(tmp_path: Path) -> None:
    code = {"AutoTokenizer": ["tokenization_my.MyTokenizer", None]}
    folder = save_bert(tmp_path, tokenizer_class="MyTokenizer", auto_map=code)
    with pytest.raises(UnsupportedModelError, match="has a MyTokenizer, which only code of its"):
        engine_logits(folder)
    # transformers takes its own class where there is one of that name
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    engine_logits(folder)


def test_a_random_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_roberta(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.1
    write_json(folder / "tokenizer.json", content)
    with pytest.raises(UnsupportedModelError, match="a dropout of"):
        engine_logits(folder)


def _refused(table: Mapping[str, Any]) -> list[str]:
    return [key for key, entry in table.items() if entry.word == "refused"]


# a value of each refused key that a reference would obey
EXAMPLES: Mapping[str, Any] = {
    "fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.0.json"],
    "configuration_files": ["config.4.0.0.json"],
    "init_inputs": ["vocab.txt"],
    "pruned_heads": {"0": [1]},
    "position_embedding_type": "relative_key",
    "quantization_config": {"quant_method": "gptq"},
    "compression_config": {"quant_method": "compressed-tensors"},
    "lora_adaptations": ["retrieval.query"],
}


@pytest.mark.parametrize("key", _refused(TOKENIZER_CONFIG))
def test_a_key_of_the_tokenizer_is_refused(key: str, tmp_path: Path) -> None:
    folder = save_bert(tmp_path, **{key: EXAMPLES.get(key, True)})
    note = TOKENIZER_CONFIG[key].note
    with pytest.raises(UnsupportedModelError, match=f"tokenizer_config.json has {key} .*{note}"):
        engine_logits(folder)
    for idle in TOKENIZER_CONFIG[key].idle:
        edit_json(folder / "tokenizer_config.json", **{key: idle})
        engine_logits(folder)


CONFIGS: Mapping[str, Callable[[Path], Any]] = {
    "bert": lambda folder: save_random(BertConfig(**SMALL, num_labels=1), folder),
    "modernbert": lambda folder: save_random(ModernBertConfig(**SMALL_MODERNBERT), folder),
}


@pytest.mark.parametrize(
    ("reader", "key"), [(reader, key) for reader in CONFIGS for key in _refused(CONFIG[reader])]
)
def test_a_key_of_the_config_is_refused(reader: str, key: str, tmp_path: Path) -> None:
    CONFIGS[reader](tmp_path)
    edit_json(tmp_path / "config.json", **{key: EXAMPLES.get(key, True)})
    with pytest.raises(UnsupportedModelError, match=f"config.json has {key} "):
        engine_logits(tmp_path)
    for idle in CONFIG[reader][key].idle:
        edit_json(tmp_path / "config.json", **{key: idle})
        engine_logits(tmp_path)


@pytest.mark.parametrize(
    ("reader", "kinds"),
    [
        ("bert", [BertConfig, RobertaConfig, XLMRobertaConfig, CamembertConfig]),
        ("modernbert", [ModernBertConfig]),
    ],
)
def test_the_table_has_every_key_that_the_config_class_has(reader: str, kinds: Any) -> None:
    for kind in kinds:
        unknown = set(kind().to_dict()) - set(CONFIG[reader])
        assert not unknown, kind.__name__


# classes for speech, pictures and tables, and tasks of several texts
OTHER_KINDS = (
    "LayoutLM", "LayoutXLM", "MarkupLM", "Udop", "Whisper", "Wav2Vec2", "CLIP", "Splinter",
    "CodeLlama", "Dia", "Clvp", "MistralCommon", "Lasr", "VideoPrism", "Esmc", "Tipsv2", "Luke",
    "MLuke",
)  # fmt: skip


def test_the_table_has_every_key_that_a_tokenizer_class_reads() -> None:
    """Arguments of every fast class, and what the base classes take out of them."""
    root = Path(inspect.getfile(transformers)).parent
    keys: set[str] = set()
    for file in root.glob("models/*/tokenization_*.py"):
        for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            bases = [ast.unparse(base) for base in getattr(each, "bases", [])]
            is_fast = "TokenizersBackend" in bases or "PreTrainedTokenizerFast" in bases
            if is_fast and not each.name.startswith(OTHER_KINDS):  # type: ignore[attr-defined]
                for method in each.body:  # type: ignore[attr-defined]
                    if getattr(method, "name", "") == "__init__":
                        given = [*method.args.args, *method.args.kwonlyargs]
                        keys |= {argument.arg for argument in given}
    base = inspect.getsource(transformers.PreTrainedTokenizerBase.__init__)
    for call in ast.walk(ast.parse(textwrap.dedent(base))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "kwargs.pop":
            keys |= {arg.value for arg in call.args[:1] if isinstance(arg, ast.Constant)}  # type: ignore[misc]
    keys -= {"self"}
    unknown = {key for key in keys if not key.startswith("_")} - set(TOKENIZER_CONFIG)
    assert not unknown


def test_every_obeyed_key_of_the_tokenizer_is_tried() -> None:
    elsewhere = {"chat_template", "add_prefix_space", "auto_map"}
    tried = {*OBEYED, *CONTRADICTIONS, *elsewhere}
    assert {key for key, entry in TOKENIZER_CONFIG.items() if entry.word == "obeyed"} == tried


@pytest.mark.parametrize("name", [name for name, entry in FILES.items() if entry.word == "refused"])
def test_a_name_of_old_module_files_is_refused(name: str, tmp_path: Path) -> None:
    save_bert(tmp_path)
    write_json(tmp_path / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    write_json(tmp_path / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    task = {"transformer_task": "sequence-classification"}
    write_json(tmp_path / "sentence_bert_config.json", task)
    engine_logits(tmp_path)
    (tmp_path / "sentence_bert_config.json").rename(tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=name):
        engine_logits(tmp_path)


def test_what_is_obeyed_is_listed(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, truncation_side="left", padding_side="left")
    config = EngineConfig(str(folder))
    checkpoint = open_checkpoint(config)
    listed = dict(obeyed(checkpoint, read_recipe(config, checkpoint)))
    assert listed["tokenizer_config.json: truncation_side"] == "'left'"
    assert listed["config.json: hidden_size"] == "32"
    assert "tokenizer_config.json: padding_side" not in listed
    assert "config.json: hidden_dropout_prob" not in listed


def test_harmless_keys_change_nothing(tmp_path: Path) -> None:
    folder = save_bert(tmp_path)
    expected = engine_logits(folder)
    harmless = {
        "padding_side": "left",
        "clean_up_tokenization_spaces": True,
        "tokenizer_file": "/home/trainer/tokenizer.json",
        "name_or_path": "my/model",
        "max_length": 20,
        "stride": 3,
        "never_split": ["Panda"],
        "nobody_reads_this": 1,
    }
    edit_json(folder / "tokenizer_config.json", **harmless)
    edit_json(folder / "config.json", problem_type="regression", nobody_reads_this=1)
    assert engine_logits(folder) == expected
    np.testing.assert_allclose(transformers_logits(folder), expected, rtol=0, atol=EXACT)
    assert load_file(folder / "model.safetensors")


@pytest.mark.parametrize("config", [LlamaConfig], ids=["llama"])
def test_the_other_readers_are_transformers_own(config: Any) -> None:
    assert set(CONFIG) == {"transformers", "bert", "modernbert", "layerwise", "lightweight"}
    assert config().model_type not in CONFIG
