"""Decoders with a classifier of one label, against transformers' own classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL, edit_json, save_byte_level_tokenizer, save_random
from fakes import load
from saved_models import CHAT, save_base
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.engine.loading.recipes import RECIPES, PromptTemplate
from bge_rerank_integrations.engine.scorers.decoder import DecoderScorer, n_padding_behind
from bge_rerank_integrations.engine.scorers.heads import PaddedScorer
from bge_rerank_integrations.engine.tokenization.pairs import to_ids

EXACT = 1e-5
SETTINGS: Any = {"dtype": "float32", "device": "cpu"}
# the byte-level tokenizer's: <|endoftext|> is 0
END = "<|endoftext|>"
DOCUMENTS = ["a bear of China", "x" * 40, "\n\nnew line ", END, "who? " * 9, f"ends {END}{END}"]
PAIRS = [(query, document) for query in ("what is a panda?", "a b c") for document in DOCUMENTS]
CONFIG = {
    **SMALL,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "qwen2": Qwen2Config(**CONFIG),
    "qwen3": Qwen3Config(**CONFIG, head_dim=8),
    "llama": LlamaConfig(**CONFIG),
    "mistral": MistralConfig(**CONFIG),
    "gemma": GemmaConfig(**CONFIG, head_dim=8),
    # texts end with the token that pads
    "pad is eos": Qwen3Config(**{**CONFIG, "pad_token_id": 2}, head_dim=8),
    "two ways": LlamaConfig(**CONFIG, is_causal=False),
}


def save(config: Any, folder: Path, pair: str | None = "<|im_start|> $A <|im_start|> $B") -> str:
    """A random classifier with a byte-level tokenizer.

    :param pair: the tokenizer's template for pairs.
    """
    save_random(config, folder)
    save_byte_level_tokenizer(folder, ["Query Document Relevant? a bear of China"] * 9, 295)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [(name, tokenizer.token_to_id(name)) for name in ("<|im_start|>", "<|im_end|>")]
    if pair is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair=pair, special_tokens=special
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    names = {0: END, 2: "<|im_end|>"}
    edit_json(folder / "tokenizer_config.json", pad_token=names[config.pad_token_id or 0])
    return str(folder)


def transformers_logits(folder: str, pairs: Any, side: str = "right") -> Any:
    """Logits of transformers' own class over one padded batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    queries, documents = zip(*pairs, strict=True)
    inputs = tokenizer(list(queries), list(documents), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[:, 0].numpy()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_transformers_own_class(name: str, side: str, tmp_path: Path) -> None:
    ends_with_eos = "<|im_start|> $A <|im_start|> $B <|im_end|>"
    folder = save(CONFIGS[name], tmp_path / "model", ends_with_eos)
    expected = transformers_logits(folder, PAIRS, side)
    assert np.ptp(expected) > 0.1
    with RerankEngine(folder, normalize=False, **SETTINGS) as engine:
        together = engine.score_pairs(PAIRS)
        alone = [engine.score_pairs([pair])[0] for pair in PAIRS]
        parts = [*engine.score_pairs(PAIRS[:5]), *engine.score_pairs(PAIRS[5:])]
    for answer in (together, alone, parts):
        np.testing.assert_allclose(answer, expected, rtol=0, atol=EXACT)


def test_a_classifier_over_a_packed_decoder_is_packed(tmp_path: Path) -> None:
    folder = save(CONFIGS["qwen3"], tmp_path / "model")
    (scorer,) = load(EngineConfig(folder, **SETTINGS)).scorers
    assert isinstance(scorer, DecoderScorer)


def test_other_decoders_are_padded(tmp_path: Path) -> None:
    folder = save(Gemma2Config(**CONFIG, head_dim=8), tmp_path / "model")
    expected = transformers_logits(folder, PAIRS)
    with RerankEngine(folder, normalize=False, **SETTINGS) as engine:
        np.testing.assert_allclose(engine.score_pairs(PAIRS), expected, rtol=0, atol=EXACT)
    (scorer,) = load(EngineConfig(folder, **SETTINGS)).scorers
    assert isinstance(scorer, PaddedScorer)


def test_a_padded_decoder_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    folder = Path(save(Gemma2Config(**CONFIG, head_dim=8), tmp_path / "model"))
    edit_json(folder / "config.json", pad_token_id=None)
    with pytest.raises(UnsupportedModelError, match="has no pad_token_id"):
        RerankEngine(str(folder), **SETTINGS)


def test_without_a_padding_token_the_last_token_is_read(tmp_path: Path) -> None:
    folder = Path(save(CONFIGS["qwen2"], tmp_path / "model"))
    edit_json(folder / "config.json", pad_token_id=None)
    # transformers takes no batch then
    expected = [transformers_logits(str(folder), [pair])[0] for pair in PAIRS]
    with RerankEngine(str(folder), normalize=False, **SETTINGS) as engine:
        np.testing.assert_allclose(engine.score_pairs(PAIRS), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("ids", "behind"), [([5, 6], 0), ([0, 5, 0], 1), ([5, 0, 6, 0, 0], 2), ([0, 0, 0], 2)]
)
def test_padding_behind_a_text_is_counted_as_transformers_does(ids: list[int], behind: int) -> None:
    assert n_padding_behind(to_ids(ids), 0) == behind


def test_a_tokenizer_that_joins_query_and_document_is_refused(tmp_path: Path) -> None:
    folder = save(CONFIGS["qwen3"], tmp_path / "model", pair=None)
    with pytest.raises(UnsupportedModelError, match="nothing says how the model reads a pair"):
        RerankEngine(folder, **SETTINGS)


def test_a_reward_model_is_refused(tmp_path: Path) -> None:
    """One label and a tokenizer for pairs, but its texts are chats of a user and an assistant."""
    folder = save(CONFIGS["llama"], tmp_path / "model")
    chat = "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}{% endfor %}"
    edit_json(tmp_path / "model" / "tokenizer_config.json", chat_template=chat)
    with pytest.raises(UnsupportedModelError, match="is not for pairs of query and document"):
        RerankEngine(folder, **SETTINGS)


@pytest.mark.parametrize("as_modules", [False, True], ids=["transformers", "modules"])
def test_a_chat_template_of_query_and_document_is_the_text(
    as_modules: bool, tmp_path: Path
) -> None:
    folder = save(CONFIGS["qwen3"], tmp_path / "model", pair=None)
    (tmp_path / "model" / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    edit_json(tmp_path / "model" / "tokenizer_config.json", eos_token="<|im_end|>")
    peer = CrossEncoder(folder, device="cpu")
    if as_modules:
        folder = str(tmp_path / "saved")
        peer.save_pretrained(folder, create_model_card=False)
        assert (tmp_path / "saved" / "modules.json").is_file()
    expected = peer.predict(PAIRS, activation_fn=torch.nn.Identity())
    with RerankEngine(folder, **SETTINGS) as engine:
        scores = engine.score_pairs(PAIRS)
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=EXACT)
    np.testing.assert_allclose(scores, peer.predict(PAIRS), rtol=0, atol=EXACT)


def convert(folder: Path, into: Path) -> str:
    """A classifier whose row is "yes" minus "no" of a text generator, as conversions are made."""
    generator = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    yes, no = (tokenizer.encode(word).ids[0] for word in ("yes", "no"))
    config = Qwen3Config.from_pretrained(folder, num_labels=1, architectures=None)
    model = AutoModelForSequenceClassification.from_config(config)
    model.model.load_state_dict(generator.model.state_dict())
    rows = generator.lm_head.weight.data
    model.score.weight.data = (rows[yes] - rows[no]).unsqueeze(0)
    model.save_pretrained(into)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, into)
    return str(into)


def test_a_conversion_scores_as_the_model_it_was_made_of(tmp_path: Path) -> None:
    """Found by its name; no chat template and no template for pairs is needed."""
    original = tmp_path / "Qwen3-Reranker-0.6B"
    config = Qwen3Config(**{**CONFIG, "vocab_size": 600}, head_dim=8, tie_word_embeddings=False)
    save_base(config, original, AutoModelForCausalLM)
    template = RECIPES["qwen3-reranker"].template
    assert isinstance(template, PromptTemplate)
    texts = [template.before, *template.after, "yes no a bear of China"]
    save_byte_level_tokenizer(original, texts * 3, 590)
    converted = convert(original, tmp_path / "Qwen3-Reranker-0.6B-seq-cls")
    renamed = str(shutil.copytree(converted, tmp_path / "model"))
    with (
        RerankEngine(str(original), **SETTINGS) as one,
        RerankEngine(converted, **SETTINGS) as other,
        RerankEngine(renamed, recipe="qwen3-reranker", **SETTINGS) as named,
    ):
        expected = one.score_pairs(PAIRS)
        for engine in (other, named):
            scores = engine.score_pairs(PAIRS)
            np.testing.assert_allclose(scores.logits, expected.logits, rtol=0, atol=EXACT)
            assert engine.score_pairs(PAIRS, instruction="find bears") != scores
    with pytest.raises(UnsupportedModelError, match="nothing says how the model reads a pair"):
        RerankEngine(renamed, **SETTINGS)


def test_a_conversion_of_two_labels_is_refused(tmp_path: Path) -> None:
    folder = save(Qwen3Config(**{**CONFIG, "num_labels": 2}, head_dim=8), tmp_path / "model")
    for recipe in (None, "qwen3-reranker"):
        with pytest.raises(UnsupportedModelError, match="classifies into 2 labels"):
            RerankEngine(folder, recipe=recipe, **SETTINGS)


def test_a_classifier_without_its_row_is_refused(tmp_path: Path) -> None:
    folder = Path(save(CONFIGS["llama"], tmp_path / "model"))
    save_base(LlamaConfig(**CONFIG), tmp_path / "base", AutoModelForCausalLM)
    shutil.copy(tmp_path / "base" / "model.safetensors", folder)
    with pytest.raises(ModelLoadError, match=r"score\.weight is missing"):
        RerankEngine(str(folder), **SETTINGS)


def test_a_recipe_by_answers_is_for_decoders_alone(bert: str) -> None:
    with pytest.raises(ConfigurationError, match="is for Qwen3ForCausalLM, Qwen3ForSequenceCl"):
        RerankEngine(bert, recipe="qwen3-reranker", **SETTINGS)
