"""Folders as other people leave them: each scores as the reference does, or is refused in words."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import (
    SMALL,
    edit_json,
    save_byte_level_tokenizer,
    save_checkpoint,
    save_random,
    write_json,
)
from fakes import load
from paths import GOLDEN
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    Qwen3Config,
    XLMRobertaConfig,
)

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.settings import CallOptions

EXACT = 1e-5
SETTINGS: Any = {"dtype": "float32", "device": "cpu", "normalize": False}
PAIRS = [("what is a panda?", "a bear of China"), ("panda", "x" * 50), ("a b c", "d e" * 30)]
XLMR = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "num_labels": 1}
DECODER = {
    **SMALL,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def logits(folder: Path | str, pairs: Any = PAIRS, **settings: Any) -> list[float]:
    with RerankEngine(str(folder), **{**SETTINGS, **settings}) as engine:
        return list(engine.score_pairs(pairs))


def peer_logits(folder: Path | str) -> Any:
    peer = CrossEncoder(str(folder), activation_fn=torch.nn.Identity(), device="cpu")
    return peer.predict(PAIRS)


def save_decoder(config: Any, folder: Path, pair: bool = True) -> Path:
    save_random(config, folder)
    save_byte_level_tokenizer(folder, ["Query Document Relevant? a bear of China"] * 9, 295)
    if pair:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        start = ("<|im_start|>", tokenizer.token_to_id("<|im_start|>"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair="<|im_start|> $A <|im_start|> $B", special_tokens=[start]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def golden(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / "model"))


class TestClassesOfTheirOwn:
    @pytest.mark.parametrize("kind", ["bert", "qwen3", "electra", "distilbert"])
    def test_a_class_of_its_own_is_refused(self, kind: str, tmp_path: Path) -> None:
        if kind == "qwen3":
            folder = save_decoder(Qwen3Config(**DECODER, head_dim=8), tmp_path)
        else:
            configs = {
                "bert": BertConfig(**SMALL, num_labels=1),
                "electra": ElectraConfig(**SMALL, num_labels=1),
                "distilbert": DistilBertConfig(
                    vocab_size=300, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=1
                ),
            }
            folder = Path(save_random(configs[kind], tmp_path))
        own = "MyPoolingForSequenceClassification"
        code = {"AutoModelForSequenceClassification": f"modeling_my.{own}"}
        edit_json(folder / "config.json", architectures=[own], auto_map=code)
        with pytest.raises(UnsupportedModelError, match="code of a checkpoint is never run"):
            logits(folder)
        # without auto_map nobody could run it, and the name alone is not believed either
        edit_json(folder / "config.json", auto_map=None)
        with pytest.raises(UnsupportedModelError, match=own):
            logits(folder)

    @pytest.mark.parametrize("auto", ["AutoModelForSequenceClassification", "AutoModelForCausalLM"])
    def test_code_behind_a_standard_name_is_left_alone(self, auto: str, tmp_path: Path) -> None:
        """transformers too takes its own class of that name, if it is not told to run the code."""
        folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path)
        expected = logits(folder)
        edit_json(tmp_path / "config.json", auto_map={auto: "modeling_my.My"})
        assert logits(folder) == expected
        np.testing.assert_allclose(peer_logits(folder), expected, rtol=0, atol=EXACT)

    @pytest.mark.parametrize("name", ["minicpm", "light"])
    def test_a_class_that_only_one_recipe_has_proves_it(self, name: str, tmp_path: Path) -> None:
        folder = golden(name, tmp_path).rename(tmp_path / "checkpoint-500")
        edit_json(folder / "config.json", _name_or_path="/home/me/out")
        recipe = {
            "minicpm": "bge-reranker-v2-minicpm-layerwise",
            "light": "bge-reranker-v2.5-gemma2-lightweight",
        }[name]
        assert logits(folder) == logits(GOLDEN / name, recipe=recipe)


class TestWithoutAClass:
    @pytest.mark.parametrize("named", [None, [], ["XLMRobertaModel"]])
    def test_an_encoder_is_known_by_its_weights(self, named: Any, tmp_path: Path) -> None:
        folder = save_random(XLMRobertaConfig(**SMALL, **XLMR), tmp_path)
        expected = logits(folder)
        edit_json(tmp_path / "config.json", architectures=named)
        assert logits(folder) == expected
        if named != []:
            np.testing.assert_allclose(peer_logits(folder), expected, rtol=0, atol=EXACT)

    def test_names_of_labels_may_be_missing_too(self, tmp_path: Path) -> None:
        folder = save_random(XLMRobertaConfig(**SMALL, **XLMR), tmp_path)
        expected = logits(folder)
        config = json.loads((tmp_path / "config.json").read_text())
        for key in ("architectures", "id2label", "label2id"):
            config.pop(key)
        write_json(tmp_path / "config.json", config)
        assert logits(folder) == expected
        np.testing.assert_allclose(peer_logits(folder), expected, rtol=0, atol=EXACT)

    @pytest.mark.parametrize("kind", ["electra", "qwen3"])
    def test_models_of_transformers_are_known_too(self, kind: str, tmp_path: Path) -> None:
        if kind == "qwen3":
            save_decoder(Qwen3Config(**DECODER, head_dim=8), tmp_path)
        else:
            save_random(ElectraConfig(**SMALL, num_labels=1), tmp_path)
        expected = logits(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        for key in ("architectures", "id2label", "label2id"):
            config.pop(key, None)
        write_json(tmp_path / "config.json", config)
        assert logits(tmp_path) == expected

    def test_a_body_alone_is_refused(self, tmp_path: Path) -> None:
        folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        body = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
        save_file(body, tmp_path / "model.safetensors", metadata={"format": "pt"})
        edit_json(tmp_path / "config.json", architectures=None)
        message = (
            r"is a model of type 'bert', and nothing proves .* recipe='sequence-classification'"
        )
        with pytest.raises(UnsupportedModelError, match=message):
            logits(folder)
        with pytest.raises(ConfigurationError, match="of one row"):
            logits(folder, recipe="sequence-classification")

    def test_two_rows_are_no_reranker(self, tmp_path: Path) -> None:
        folder = save_random(BertConfig(**SMALL, num_labels=2), tmp_path)
        edit_json(tmp_path / "config.json", architectures=None)
        with pytest.raises(UnsupportedModelError, match="nothing proves"):
            logits(folder)

    def test_the_setting_names_a_classifier(self, tmp_path: Path) -> None:
        folder = save_random(XLMRobertaConfig(**SMALL, **XLMR), tmp_path)
        expected = logits(folder)
        assert logits(folder, recipe="sequence-classification") == expected
        edit_json(tmp_path / "config.json", architectures=["XLMRobertaForMaskedLM"])
        assert logits(folder, recipe="sequence-classification") == expected


class TestTokenizers:
    @pytest.mark.parametrize("config", [BertConfig(**SMALL, num_labels=1),
                                        XLMRobertaConfig(**SMALL, **XLMR)])  # fmt: skip
    @pytest.mark.parametrize("keeps_config", [False, True])
    def test_a_checkpoint_without_a_vocabulary_is_refused(
        self, config: Any, keeps_config: bool, tmp_path: Path
    ) -> None:
        folder = save_random(config, tmp_path)
        (tmp_path / "tokenizer.json").unlink()
        if not keeps_config:
            (tmp_path / "tokenizer_config.json").unlink()
        with pytest.raises(ModelLoadError, match=r"has no tokenizer.*from the base model"):
            logits(folder)

    def test_a_vocabulary_that_knows_nothing_is_refused(self, tmp_path: Path) -> None:
        folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        content["model"]["vocab"] = {
            token["content"]: token["id"] for token in content["added_tokens"]
        }
        write_json(tmp_path / "tokenizer.json", content)
        with pytest.raises(ModelLoadError, match="knows no token of a sample text"):
            logits(folder)

    @pytest.mark.parametrize("kind", ["BertJapaneseTokenizer", "PhobertTokenizer"])
    def test_a_slow_tokenizer_is_told(self, kind: str, tmp_path: Path) -> None:
        folder = save_random(XLMRobertaConfig(**SMALL, **XLMR), tmp_path)
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
        write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": kind})
        with pytest.raises(UnsupportedModelError, match=f"{kind}, which is a slow tokenizer only"):
            logits(folder)

    @pytest.mark.skipif(
        importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed"
    )
    def test_a_missing_sentencepiece_is_named(self, tmp_path: Path) -> None:
        folder = golden("xlmr", tmp_path)
        (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
        with pytest.raises(ModelLoadError, match="pip install sentencepiece"):
            logits(folder)

    @pytest.mark.parametrize("name", ["gemma", "minicpm", "light"])
    @pytest.mark.parametrize("how", ["no key", "no file", "nothing", "generic"])
    def test_the_first_token_is_found(self, name: str, how: str, tmp_path: Path) -> None:
        """In special_tokens_map.json, then as its class or recipe has it."""
        folder = golden(name, tmp_path)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop("bos_token")
        if how == "no file":
            (folder / "tokenizer_config.json").unlink()
        else:
            if how == "generic":
                settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            write_json(folder / "tokenizer_config.json", settings)
        if how in ("nothing", "generic"):
            (folder / "special_tokens_map.json").unlink()
        recipe = "bge-reranker-v2-gemma" if name == "gemma" else None
        found = logits(folder, recipe=recipe)
        assert found == logits(GOLDEN / name, recipe=recipe)
        if name == "gemma":
            # scores of FlagLLMReranker in float32
            as_flag_embedding(found, [0.3785135746002197, -0.2420748919248581, -1.3195247650146484])

    @pytest.mark.parametrize(("length", "expected"), [(512, 0.5269947052001953),
                                                      (100, 0.3312385082244873)])  # fmt: skip
    def test_a_decoder_that_was_saved_to_cut_on_the_left(
        self, length: int, expected: float, tmp_path: Path
    ) -> None:
        """FlagEmbedding's tokenizer cuts what stands before the document, too."""
        folder = golden("gemma", tmp_path)
        edit_json(folder / "tokenizer_config.json", truncation_side="left")
        pairs = [("what is a panda?", "a bear of China who eats bamboo " * 200)]
        settings: Any = {"recipe": "bge-reranker-v2-gemma", "max_length": length}
        as_flag_embedding(logits(folder, pairs, **settings), [expected])
        end = logits(folder, pairs, long_documents="truncate_left", **settings)
        assert abs(end[0] - expected) > 1e-3

    def test_a_model_without_a_first_token_says_so(self, tmp_path: Path) -> None:
        folder = golden("gemma", tmp_path)
        edit_json(folder / "tokenizer_config.json", bos_token="<nobody>", add_bos_token=None)
        with pytest.raises(
            UnsupportedModelError, match="begin with '<nobody>', and its vocabulary"
        ):
            logits(folder, recipe="bge-reranker-v2-gemma")
        edit_json(folder / "tokenizer_config.json", bos_token=None)
        without = logits(folder, recipe="bge-reranker-v2-gemma")
        assert without != logits(GOLDEN / "gemma", recipe="bge-reranker-v2-gemma")


class TestLengths:
    @pytest.mark.parametrize(
        ("saved", "marks", "expected"),
        [
            (64, {}, 64),
            (600, {}, 512),
            (600, {"sentence_transformers": {"version": "5.1.2"}}, 600),
            (10**30, {}, 512),
            (1e30, {}, 512),
            (None, {}, 512),
        ],
    )
    def test_a_saved_length_is_the_default(
        self, saved: Any, marks: Any, expected: int, tmp_path: Path
    ) -> None:
        config = {**SMALL, "max_position_embeddings": 1024}
        folder = save_random(BertConfig(**config, num_labels=1), tmp_path)
        edit_json(tmp_path / "tokenizer_config.json", model_max_length=saved)
        edit_json(tmp_path / "config.json", **marks)
        with RerankEngine(folder, **SETTINGS) as engine:
            assert engine.max_length == expected
        with RerankEngine(folder, max_length=1000, **SETTINGS) as engine:
            assert engine.max_length == 1000

    def test_the_padded_path_reads_beyond_a_window(self, tmp_path: Path) -> None:
        config = Gemma3TextConfig(**DECODER, head_dim=8, sliding_window=16)
        folder = save_decoder(config, tmp_path)
        pairs = [("what is a panda?", "a bear of China " * 9)]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        inputs = tokenizer(*pairs[0], return_tensors="pt")
        assert inputs["input_ids"].shape[1] > 40
        with torch.inference_mode():
            expected = model.eval()(**inputs).logits[:, 0].numpy()
        np.testing.assert_allclose(logits(folder, pairs), expected, rtol=0, atol=EXACT)

    @pytest.mark.parametrize("kind", ["bert", "electra"])
    def test_positions_left_out_are_the_class_default(self, kind: str, tmp_path: Path) -> None:
        kinds = {"bert": BertConfig, "electra": ElectraConfig}
        config = kinds[kind](**{**SMALL, "max_position_embeddings": 512}, num_labels=1)
        folder = save_random(config, tmp_path)
        expected = logits(folder)
        written = json.loads((tmp_path / "config.json").read_text())
        written.pop("max_position_embeddings")
        write_json(tmp_path / "config.json", written)
        assert logits(folder) == expected
        with RerankEngine(folder, max_length=4000, **SETTINGS) as engine:
            assert engine.max_length == 512
            engine.score_pairs([("a", "b " * 3000)])

    def test_a_padding_token_that_positions_need(self, tmp_path: Path) -> None:
        folder = save_random(XLMRobertaConfig(**SMALL, **XLMR), tmp_path)
        edit_json(tmp_path / "config.json", pad_token_id=None)
        with pytest.raises(ModelLoadError, match="pad_token_id must be a token's number"):
            logits(folder)


class TestConfigs:
    def test_a_byte_order_mark_is_read_over(self, tmp_path: Path) -> None:
        folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path)
        expected = logits(folder)
        for name in ("config.json", "tokenizer_config.json"):
            path = tmp_path / name
            path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
        assert logits(folder) == expected

    def test_a_padded_model_has_no_cache(self, tmp_path: Path) -> None:
        folder = save_decoder(Gemma3TextConfig(**DECODER, head_dim=8), tmp_path)
        loaded = load(EngineConfig(str(folder), dtype="float32", device="cpu"))
        scorer: Any = loaded.scorers[0]
        seen = []
        scorer._model.register_forward_hook(
            lambda *call: seen.append(call[-1].get("past_key_values"))
        )
        tokenize = loaded.tokenizer
        (sequences,) = tokenize(PAIRS[:1], tokenize.layout(CallOptions()))
        scorer.score(sequences)
        assert seen == [None]

    @pytest.mark.parametrize("kind", ["llama", "gemma"])
    def test_both_directions_are_seen_where_the_config_says_so(
        self, kind: str, tmp_path: Path
    ) -> None:
        changes = {"llama": {"is_causal": False}, "gemma": {"use_bidirectional_attention": True}}
        config: Any = {"llama": LlamaConfig, "gemma": GemmaConfig}[kind]
        folder = save_decoder(config(**DECODER, head_dim=8, **changes[kind]), tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        inputs = tokenizer(*PAIRS[0], return_tensors="pt")
        with torch.inference_mode():
            expected = model.eval()(**inputs).logits[:, 0].numpy()
        np.testing.assert_allclose(logits(folder, PAIRS[:1]), expected, rtol=0, atol=EXACT)


def as_flag_embedding(logits: Any, expected: list[float]) -> None:
    """Compare with FlagEmbedding 1.4.2 on transformers 4.46.3, on the same edited copy."""
    np.testing.assert_allclose(logits, expected, rtol=0, atol=EXACT)


class TestLayerwise:
    def test_one_head_for_every_layer(self, tmp_path: Path) -> None:
        """Equal to as many heads of one row."""
        folder = golden("minicpm", tmp_path)
        weights = load_file(folder / "model.safetensors")
        heads = [name for name in weights if name.startswith("lm_head.")]
        row = weights[heads[0]]
        for name in heads:
            weights[name] = row.clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        layers: Any = {"cutoff_layers": [3, 8]}
        with RerankEngine(str(folder), **layers, **SETTINGS) as engine:
            expected = engine.score_layers(PAIRS)
        one = {name: tensor for name, tensor in weights.items() if name not in heads}
        one["lm_head.linear_head.weight"] = row.clone()
        save_file(one, folder / "model.safetensors", metadata={"format": "pt"})
        edit_json(folder / "config.json", head_multi=False)
        # scores of LayerWiseFlagLLMReranker in float32, after layer 8
        as_flag_embedding(
            logits(folder), [-1.0886270999908447, -1.038758635520935, -1.0568598508834839]
        )
        with RerankEngine(str(folder), **layers, **SETTINGS) as engine:
            assert engine.score_layers(PAIRS) == expected

    @pytest.mark.parametrize("kind", ["complex", "raw"])
    def test_heads_of_the_vocabularys_size_are_refused(self, kind: str, tmp_path: Path) -> None:
        folder = golden("minicpm", tmp_path)
        edit_json(folder / "config.json", head_type=kind)
        with pytest.raises(UnsupportedModelError, match=f"has head_type '{kind}'"):
            logits(folder)

    def test_scaled_positions_are_obeyed(self, tmp_path: Path) -> None:
        folder = golden("minicpm", tmp_path)
        edit_json(folder / "config.json", rope_scaling={"type": "linear", "factor": 4.0})
        as_flag_embedding(
            logits(folder), [-1.9164897203445435, -1.8616784811019897, -1.7332490682601929]
        )
        # dynamic scaling changes with the longest text of a batch
        edit_json(folder / "config.json", rope_scaling={"type": "dynamic", "factor": 4.0})
        with pytest.raises(UnsupportedModelError, match="of type 'dynamic'"):
            logits(folder)

    @pytest.mark.parametrize("name", ["minicpm", "light"])
    def test_a_config_saved_again_by_transformers_5(self, name: str, tmp_path: Path) -> None:
        folder = golden(name, tmp_path)
        config = json.loads((folder / "config.json").read_text())
        theta = config.pop("rope_theta")
        config.pop("rope_scaling", None)
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        write_json(folder / "config.json", config)
        assert logits(folder) == logits(GOLDEN / name)

    def test_a_model_without_heads_is_refused(self, tmp_path: Path) -> None:
        folder = golden("light", tmp_path)
        edit_json(folder / "config.json", layer_wise=False)
        with pytest.raises(UnsupportedModelError, match="has layer_wise False"):
            logits(folder)

    def test_layers_in_steps(self, tmp_path: Path) -> None:
        folder = golden("light", tmp_path)
        edit_json(folder / "config.json", layer_sep=2)
        with pytest.raises(ConfigurationError, match=r"within 2\.\.8 in steps of 2"):
            logits(folder, cutoff_layers=[3])
        logits(folder, cutoff_layers=[4])

    def test_a_model_without_a_cap(self, tmp_path: Path) -> None:
        folder = golden("light", tmp_path)
        capped = logits(folder)
        edit_json(folder / "config.json", final_logit_softcapping=None)
        np.testing.assert_allclose(
            30 * np.tanh(np.divide(logits(folder), 30)), capped, rtol=0, atol=EXACT
        )


ANY_ROLE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


class TestChatTemplates:
    def test_a_template_for_any_role_proves_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = save_decoder(LlamaConfig(**DECODER), tmp_path)
        plain = logits(folder)
        edit_json(tmp_path / "tokenizer_config.json", chat_template=ANY_ROLE)
        with pytest.raises(UnsupportedModelError, match="renders any role alike") as error:
            logits(folder)
        assert "recipe='sequence-classification'" in str(error.value)
        with caplog.at_level(logging.INFO):
            assert logits(folder, recipe="sequence-classification") == plain
        assert "reads the tokenizer's pair" in caplog.text

    def test_a_template_that_fails_for_other_roles_is_one_for_pairs(self, tmp_path: Path) -> None:
        folder = save_decoder(LlamaConfig(**DECODER), tmp_path, pair=False)
        strict = (
            "{% for m in messages %}{% if m.role not in ('system', 'query', 'document') %}"
            "{{ raise_exception('role') }}{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        )
        edit_json(tmp_path / "tokenizer_config.json", chat_template=strict)
        np.testing.assert_allclose(logits(folder), peer_logits(folder), rtol=0, atol=EXACT)


def test_types_that_are_neither_nought_nor_one_are_refused(tmp_path: Path) -> None:
    """XLNet's last token has a type of its own."""
    folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:1", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:0", special_tokens=ends
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="token types"):
        logits(folder)


def test_relative_positions_that_transformers_5_forgot_are_refused(tmp_path: Path) -> None:
    folder = save_random(ElectraConfig(**SMALL, num_labels=1), tmp_path)
    edit_json(tmp_path / "config.json", position_embedding_type="relative_key")
    with pytest.raises(UnsupportedModelError, match="positions of type 'relative_key'"):
        logits(folder)


def test_a_tokenizer_of_older_files_alone(tmp_path: Path) -> None:
    """``vocab.txt`` without a tokenizer.json is converted, and its settings are obeyed."""
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SMALL, num_labels=1))
    save_checkpoint(model, tmp_path)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "tokenizer.json").unlink()
    tokens = sorted([*vocabulary, "[MASK]"], key=lambda token: vocabulary.get(token, 10**6))
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    write_json(tmp_path / "tokenizer_config.json", {**settings, "model_max_length": 40})
    np.testing.assert_allclose(logits(tmp_path), peer_logits(tmp_path), rtol=0, atol=EXACT)
