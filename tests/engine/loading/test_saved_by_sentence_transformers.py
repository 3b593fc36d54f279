"""Checkpoints that sentence-transformers saved, against sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL, edit_json, write_json
from fakes import load, recorded_engine
from saved_models import (
    SPECIAL,
    dense_head,
    save_classifier,
    save_decoder,
    save_modules,
)
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, normalizers
from transformers import (
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from bge_rerank_integrations import ConfigurationError, EngineConfig, InputError, RerankEngine

EXACT = 1e-5
QUERIES = ["what is a panda?", "", "a b c"]
DOCUMENTS = ["a bear of China", "", "x" * 40, "\n\nnew line ", "who? [SEP] me"]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
DECODER = {**SMALL, **SPECIAL, "num_key_value_heads": 2, "max_position_embeddings": 256}
DISTILBERT = {
    "vocab_size": 300, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
    "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
MODERN = {**SMALL, **SPECIAL, "cls_token_id": 2, "sep_token_id": 3, "classifier_pooling": "mean"}
# as microsoft/deberta-v3-base
DEBERTA_V3 = {
    "type_vocab_size": 0, "relative_attention": True, "position_buckets": 16,
    "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "position_biased_input": False, "pooler_hidden_size": 32, "pooler_hidden_act": "gelu",
}  # fmt: skip
SIGMOID, TANH, IDENTITY = torch.nn.Sigmoid(), torch.nn.Tanh(), torch.nn.Identity()

SAVED: dict[str, Any] = {
    "bert-mean": lambda f: save_modules(BertConfig(**SMALL), f, dense_head("mean")),
    "bert-cls": lambda f: save_modules(
        BertConfig(**SMALL), f, dense_head("cls"), activation_fn=IDENTITY
    ),
    "roberta-cls": lambda f: save_modules(
        RobertaConfig(**SMALL, **SPECIAL), f, dense_head("cls"), activation_fn=TANH
    ),
    "xlm-roberta-mean": lambda f: save_modules(
        XLMRobertaConfig(**SMALL, **SPECIAL), f, dense_head("mean")
    ),
    "camembert-mean": lambda f: save_modules(
        CamembertConfig(**SMALL, **SPECIAL), f, dense_head("mean")
    ),
    "modernbert-cls": lambda f: save_modules(ModernBertConfig(**MODERN), f, dense_head("cls")),
    "modernbert-mean": lambda f: save_modules(ModernBertConfig(**MODERN), f, dense_head("mean")),
    "distilbert-mean": lambda f: save_modules(
        DistilBertConfig(**DISTILBERT), f, dense_head("mean")
    ),
    "electra-cls": lambda f: save_modules(
        ElectraConfig(**SMALL, embedding_size=32), f, dense_head("cls")
    ),
    "bert-prompt": lambda f: save_modules(
        BertConfig(**SMALL),
        f,
        dense_head("mean"),
        prompts={"ask": "find: "},
        default_prompt_name="ask",
    ),
    "bert-classifier": lambda f: save_classifier(BertConfig(**SMALL, num_labels=1), f, IDENTITY),
    "xlm-roberta-classifier": lambda f: save_classifier(
        XLMRobertaConfig(**SMALL, **SPECIAL, num_labels=1), f
    ),
    "modernbert-classifier": lambda f: save_classifier(ModernBertConfig(**MODERN, num_labels=1), f),
    "distilbert-classifier": lambda f: save_classifier(
        DistilBertConfig(**DISTILBERT, num_labels=1), f, TANH
    ),
    "deberta-v3-classifier": lambda f: save_classifier(
        DebertaV2Config(**SMALL, **DEBERTA_V3, num_labels=1), f
    ),
    "qwen2-one-token": lambda f: save_decoder(Qwen2Config(**DECODER), f, (17, None)),
    "qwen3-two-tokens": lambda f: save_decoder(
        Qwen3Config(**DECODER, head_dim=8),
        f,
        (40, 41),
        processing={"chat_template": {"add_generation_prompt": True}},
    ),
    "gemma-two-tokens": lambda f: save_decoder(GemmaConfig(**DECODER, head_dim=8), f, (5, 290)),
    "llama-prompt": lambda f: save_decoder(
        LlamaConfig(**DECODER),
        f,
        (5, 6),
        activation_fn=IDENTITY,
        prompts={"ask": "judge the pair"},
        default_prompt_name="ask",
    ),
    "mistral-one-token": lambda f: save_decoder(MistralConfig(**DECODER), f, (7, None)),
}


@pytest.mark.parametrize("name", SAVED)
def test_scores_equal_sentence_transformers(name: str, tmp_path: Path) -> None:
    folder = SAVED[name](tmp_path / name)
    peer = CrossEncoder(folder, device="cpu")
    logits, scores = peer.predict(PAIRS, activation_fn=IDENTITY), peer.predict(PAIRS)
    assert np.ptp(logits) > 0.01
    assert load(EngineConfig(folder, device="cpu")).scorers[0].padded == (
        name.startswith(("distilbert", "electra", "deberta"))
    )
    with RerankEngine(folder, dtype="float32", device="cpu") as engine:
        together = engine.score_pairs(PAIRS)
        alone = [engine.score_pairs([pair])[0] for pair in PAIRS]
        halves = [*engine.score_pairs(PAIRS[:7]), *engine.score_pairs(PAIRS[7:])]
        plain = engine.score_pairs(PAIRS, normalize=False)
    for answer in (together, alone, halves):
        np.testing.assert_allclose(answer, scores, rtol=0, atol=EXACT)
    for answer in (together.logits, plain):
        np.testing.assert_allclose(answer, logits, rtol=0, atol=EXACT)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_decoder(
        Qwen2Config(**DECODER), tmp_path_factory.mktemp("decoder") / "saved", (17, 18)
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder") / "saved"
    return save_modules(BertConfig(**SMALL), folder, dense_head("mean"))


def test_a_document_too_long_for_a_chat_template_is_cut_as_sentence_transformers_does(
    decoder: str,
) -> None:
    pairs = [("who?", "a bear eats " * 40), ("what is it?", "a" * 300), ("who?", "short")]
    peer = CrossEncoder(decoder, device="cpu")
    expected = peer.predict(pairs)
    settings: Any = {"dtype": "float32", "device": "cpu"}
    engine, scorer = recorded_engine(decoder, **settings)
    with engine:
        assert engine.max_length == 128
        answer = engine.score_pairs(pairs)
        assert sorted(map(len, scorer.sequences))[1:] == [128, 128]
        assert answer.usage.truncated == [0, 1]
        assert not answer.usage.query_truncated
        short = engine.score_pairs(pairs, max_length=90)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=EXACT)
    peer = CrossEncoder(decoder, device="cpu", max_length=90)
    np.testing.assert_allclose(short, peer.predict(pairs), rtol=0, atol=EXACT)


def test_what_a_chat_template_needs_is_never_cut(decoder: str) -> None:
    engine, scorer = recorded_engine(decoder, dtype="float32", device="cpu")
    tokenizer = Tokenizer.from_file(f"{decoder}/tokenizer.json")
    with engine:
        for query in ("q", "a long query " * 30):
            scores = engine.score(query, ["the document " * 30], query_max_length=20)
            assert len(scorer.sequences[-1]) == 128
            text = tokenizer.decode(scorer.sequences[-1].ids.tolist(), skip_special_tokens=False)
            begin, _, rest = text.partition("\n<Document>: the document the ")
            assert begin.startswith("<|im_start|><Query>: ")
            read = begin.removeprefix("<|im_start|><Query>: ")
            assert query.startswith(read)
            assert len(tokenizer.encode(read)) == min(20, len(tokenizer.encode(query)))
            assert rest.endswith("\n\n<|im_end|>\nRelevant?")
            assert scores.usage.query_truncated == (query != "q")
        with pytest.raises(ConfigurationError, match="query_max_length must be at most"):
            engine.score("q", ["d"], query_max_length=100)


def test_windows_of_a_chat_template_cover_the_document(decoder: str) -> None:
    engine, scorer = recorded_engine(decoder, device="cpu", long_documents="window")
    document = "".join(f"{number} pandas, " for number in range(60))
    with engine:
        scores = engine.score("who?", [document, "short"])
    *windows, _ = sorted(scorer.sequences, key=len, reverse=True)
    assert len(windows) > 2
    assert not scores.usage.truncated
    decode = Tokenizer.from_file(f"{decoder}/tokenizer.json").decode
    read = [decode(one.ids[one.passage_start : one.passage_end].tolist()) for one in windows]
    assert all(text.strip() in document for text in read)
    assert all(any(f"{number} pandas" in text for text in read) for number in range(60))
    for window in windows:
        assert len(window) == 128
        assert decode(window.ids.tolist()[-20:], skip_special_tokens=False).endswith(
            "\n\n<|im_end|>\nRelevant?"
        )


def decode_end(folder: str, text: str, tokens: int) -> str:
    """The end of a text, of this many tokens."""
    encoding = Tokenizer.from_file(f"{folder}/tokenizer.json").encode(text)
    return text[encoding.offsets[-tokens][0] :]


def test_a_long_document_in_a_chat_template_may_be_read_from_its_end(decoder: str) -> None:
    engine, scorer = recorded_engine(decoder, device="cpu", long_documents="truncate_left")
    document = "".join(f"{number} pandas, " for number in range(60)) + "the end"
    with engine:
        assert engine.score("who?", [document]).usage.truncated == [0]
        assert engine.score("who?", [document], max_document_tokens=3) == pytest.approx(
            engine.score("who?", [decode_end(decoder, document, 3)])
        )
    decode = Tokenizer.from_file(f"{decoder}/tokenizer.json").decode
    sequence = scorer.sequences[0]
    assert len(sequence) == 128
    text = decode(sequence.ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|><Query>: who?\n<Document>:")
    assert text.endswith("59 pandas, the end\n\n<|im_end|>\nRelevant?")


def test_a_chat_template_refuses_what_would_be_cut(decoder: str) -> None:
    with RerankEngine(decoder, device="cpu", long_documents="refuse") as engine:
        assert len(engine.score("who?", ["a bear"])) == 1
        with pytest.raises(InputError, match=r"have \d+ tokens and the model reads 128"):
            engine.score("who?", ["1 2 " * 60])
        with pytest.raises(InputError, match="20 of them of a query"):
            engine.score("who? " * 10, ["a"], query_max_length=20)


def test_a_document_in_a_chat_template_is_cut_where_the_call_says(decoder: str) -> None:
    engine, scorer = recorded_engine(decoder, device="cpu")
    length = len(Tokenizer.from_file(f"{decoder}/tokenizer.json").encode("a bear of"))
    with engine:
        whole = engine.score("who?", ["a bear of China"], max_document_tokens=length)
        assert engine.score("who?", ["a bear of"]) == whole
        assert whole.usage.truncated == [0]
    assert scorer.sequences[0].ids.tolist() == scorer.sequences[1].ids.tolist()


def test_a_length_that_a_chat_template_does_not_fit_into_names_one_that_it_does(
    decoder: str,
) -> None:
    with pytest.raises(ConfigurationError, match="max_length must be at least") as caught:
        RerankEngine(decoder, device="cpu", max_length=16)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    with RerankEngine(decoder, device="cpu", max_length=least) as engine:
        assert len(engine.score("a query " * 9, ["a document " * 9])) == 1
    with pytest.raises(ConfigurationError, match=f"at least {least} "):
        RerankEngine(decoder, device="cpu", max_length=least - 1)


def test_an_instruction_is_the_system_message_of_a_chat_template(decoder: str) -> None:
    peer = CrossEncoder(decoder, device="cpu")
    with RerankEngine(decoder, dtype="float32", device="cpu") as engine:
        plain = engine.score_pairs(PAIRS)
        asked = engine.score_pairs(PAIRS, instruction="find bears")
    expected = peer.predict(PAIRS, prompt="find bears")
    np.testing.assert_allclose(asked, expected, rtol=0, atol=EXACT)
    assert asked != plain


def test_an_instruction_takes_the_place_of_an_encoders_prompt(tmp_path: Path) -> None:
    folder = SAVED["bert-prompt"](tmp_path / "model")
    peer = CrossEncoder(folder, device="cpu")
    with RerankEngine(folder, dtype="float32", device="cpu") as engine:
        asked = engine.score_pairs(PAIRS, instruction="who is ")
    np.testing.assert_allclose(asked, peer.predict(PAIRS, prompt="who is "), rtol=0, atol=EXACT)


def test_the_length_that_was_saved_is_the_default(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    edit_json(folder / "tokenizer_config.json", model_max_length=40)
    pairs = [("who?", "a bear eats " * 40)]
    with RerankEngine(str(folder), dtype="float32", device="cpu") as engine:
        assert engine.max_length == 40
        expected = CrossEncoder(str(folder), device="cpu").predict(pairs)
        np.testing.assert_allclose(engine.score_pairs(pairs), expected, rtol=0, atol=EXACT)
        assert engine.with_options(max_length=50).max_length == 50
    edit_json(folder / "sentence_bert_config.json", max_seq_length=30)
    with RerankEngine(str(folder), device="cpu") as engine:
        assert engine.max_length == 30


def test_a_tokenizer_without_a_limit_leaves_the_length_that_pairs_have_by_default(
    tmp_path: Path,
) -> None:
    config = BertConfig(**{**SMALL, "max_position_embeddings": 600})
    folder = Path(save_modules(config, tmp_path / "model", dense_head("mean")))
    edit_json(folder / "tokenizer_config.json", model_max_length=10**30)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=None)
    with RerankEngine(str(folder), device="cpu") as engine:
        assert engine.max_length == 512
    # a length is a length, also where a tokenizer has it
    edit_json(folder / "tokenizer_config.json", model_max_length=550)
    with RerankEngine(str(folder), device="cpu") as engine:
        assert engine.max_length == 550


def test_a_dense_without_a_saved_activation_has_its_class_own(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    saved = json.loads((folder / "2_Dense" / "config.json").read_text("utf-8"))
    del saved["activation_function"]
    write_json(folder / "2_Dense" / "config.json", saved)
    with RerankEngine(str(folder), dtype="float32", device="cpu") as engine:
        scores = engine.score_pairs(PAIRS)
    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=EXACT)


def test_without_a_saved_activation_scores_are_the_sigmoids(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    saved = json.loads((folder / "config_sentence_transformers.json").read_text("utf-8"))
    del saved["activation_fn"]
    write_json(folder / "config_sentence_transformers.json", saved)
    with RerankEngine(str(folder), dtype="float32", device="cpu") as engine:
        scores = engine.score_pairs(PAIRS)
    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=EXACT)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array(scores.logits))), atol=EXACT)


@pytest.mark.parametrize(
    ("config", "length"),
    # as the classes of transformers have it: Qwen2's window needs a switch, Mistral's does not
    [(MistralConfig, 50), (Qwen2Config, 128)],
)
def test_a_window_without_a_switch_is_what_its_class_makes_of_it(
    config: Any, length: int, tmp_path: Path
) -> None:
    folder = Path(save_decoder(config(**DECODER, sliding_window=50), tmp_path / "model", (7, None)))
    read = json.loads((folder / "config.json").read_text("utf-8"))
    names = read.keys() - {"use_sliding_window", "layer_types"}
    write_json(
        folder / "config.json", {**{name: read[name] for name in names}, "sliding_window": 50}
    )
    with RerankEngine(str(folder), device="cpu") as engine:
        assert engine.max_length == length


def test_older_names_of_modules_and_settings_are_read(encoder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    names = json.loads((folder / "modules.json").read_text("utf-8"))
    for entry in names:
        entry["type"] = "sentence_transformers.models." + entry["type"].rpartition(".")[2]
    write_json(folder / "modules.json", names)
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    )
    settings: Any = {"dtype": "float32", "device": "cpu"}
    with RerankEngine(encoder, **settings) as engine, RerankEngine(str(folder), **settings) as old:
        assert old.score_pairs(PAIRS) == engine.score_pairs(PAIRS)


def test_texts_are_put_into_lower_case_where_the_model_was_saved_so(
    encoder: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # the texts of lower case are what it normalizes
    tokenizer.normalizer = normalizers.Replace("B", "z")
    tokenizer.save(str(folder / "tokenizer.json"))
    scores = []
    for lower in (False, True):
        edit_json(folder / "sentence_bert_config.json", do_lower_case=lower)
        with RerankEngine(str(folder), dtype="float32", device="cpu") as engine:
            scores.append(engine.score("WHO", ["A Bear"]))
            small = engine.score("who", ["a bear"])
    assert scores[1] == small != scores[0]
