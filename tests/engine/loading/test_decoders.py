"""Decoders that are scored by an answer: prompts, heads, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_json, save_byte_level_tokenizer
from fakes import recorded_engine
from paths import GOLDEN
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    InputError,
    ModelLoadError,
    RerankEngine,
)
from bge_rerank_integrations.engine.loading.recipes import RECIPES, PromptTemplate

PAIRS = [
    (query, passage)
    for query in ["what is a panda?", "who\n", "", "1, 2: ", "日本？"]
    for passage in ["A panda is a bear.", "", " leading", "\n\nnew line", "\tno", "0", "熊猫。" * 9]
]
LONG = ("what is it?", "The panda eats bamboo. " * 60)
QWEN_SIZE = {
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}


def save(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    prompts = ["query: yes no document: ?\n\n\n:\n"]
    for name in ("qwen3-reranker", "mxbai-rerank-v2"):
        template = RECIPES[name].template
        assert isinstance(template, PromptTemplate)
        prompts += [template.before, *template.after]
    texts = [*prompts * 3, *(text for pair in PAIRS for text in pair)]
    save_byte_level_tokenizer(folder, texts, vocab_size=590)
    return str(folder)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def qwen3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    config = Qwen3Config(**QWEN_SIZE, head_dim=8, tie_word_embeddings=request.param)
    folder = tmp_path_factory.mktemp("qwen3") / "Qwen3-Reranker-0.6B"
    return save(Qwen3ForCausalLM(config), folder)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("qwen2") / "mxbai-rerank-base-v2"
    return save(Qwen2ForCausalLM(Qwen2Config(**QWEN_SIZE)), folder)


def last_logits(folder: str, ids: list[list[int]], answer: str, counter: str) -> list[float]:
    """The answers' difference at the last token, from the whole model, one sequence at a time."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    yes, no = (tokenizer.encode(text).ids[0] for text in (answer, counter))
    with torch.inference_mode():
        rows = [model(torch.tensor([sequence])).logits[0, -1] for sequence in ids]
    return [(row[yes] - row[no]).item() for row in rows]


@pytest.mark.parametrize("instruction", [None, "Find the passage about bears"])
@pytest.mark.parametrize("max_length", [512, 160])
def test_qwen3_reranker(qwen3: str, instruction: str | None, max_length: int) -> None:
    """The model card's recipe: one text between a fixed prefix and suffix, cut at max_length."""
    encode = Tokenizer.from_file(f"{qwen3}/tokenizer.json").encode
    prefix = encode(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    ).ids
    suffix = encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n").ids
    task = (
        instruction or "Given a web search query, retrieve relevant passages that answer the query"
    )
    room = max_length - len(prefix) - len(suffix)
    pairs = [*PAIRS, LONG]
    ids = [
        [*prefix, *encode(f"<Instruct>: {task}\n<Query>: {q}\n<Document>: {p}").ids[:room], *suffix]
        for q, p in pairs
    ]
    with RerankEngine(
        qwen3,
        instruction=instruction,
        dtype="float32",
        device="cpu",
        normalize=False,
        max_length=max_length,
        query_max_length=20,
    ) as engine:
        scores = engine.score_pairs(pairs)
    np.testing.assert_allclose(scores, last_logits(qwen3, ids, "yes", "no"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("instruction", [None, "Find the passage about bears"])
@pytest.mark.parametrize("max_length", [512, 64])
def test_mxbai_rerank_v2(qwen2: str, instruction: str | None, max_length: int) -> None:
    """mxbai-rerank's recipe: query and passage by themselves, the pair cut at max_length."""
    tokenizer = Tokenizer.from_file(f"{qwen2}/tokenizer.json")

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:"
    )
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    before = encode(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
    after = [*encode("\n"), *encode(task), *encode("<|im_end|>\n<|im_start|>assistant\n")]
    pairs = [*PAIRS, LONG]
    ids = []
    for query, passage in pairs:
        asked = f"instruction: {instruction}\nquery: {query}" if instruction else f"query: {query}"
        head = encode(asked)[: max_length * 3 // 4]
        tail = [*encode("\n"), *encode(f"document: {passage}")[:max_length]]
        ids.append([*before, *head, *tail[: max_length - len(head)], *after])
    with RerankEngine(
        qwen2,
        instruction=instruction,
        dtype="float32",
        device="cpu",
        normalize=False,
        max_length=max_length,
    ) as engine:
        scores = engine.score_pairs(pairs)
    np.testing.assert_allclose(scores, last_logits(qwen2, ids, "1", "0"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "noise"), [("bfloat16", 0.026), ("float16", 0.0024)])
def test_half_precision_equals_the_whole_model_in_half_precision(
    reference: dict[str, Any], dtype: str, noise: float
) -> None:
    """Bounds: what left padding alone moves the reference's scores of a gemma."""
    folder = str(GOLDEN / "gemma")
    pairs = [tuple(pair) for pair in reference["pairs"]]
    settings: Any = {"dtype": dtype, "device": "cpu", "normalize": False}
    engine, scorer = recorded_engine(folder, **settings)
    with engine:
        # one after the other: the sequences are recorded in the pairs' order
        scores = [engine.score_pairs([pair])[0] for pair in pairs]
    sequences = [sequence.ids.tolist() for sequence in scorer.sequences]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    yes = Tokenizer.from_file(f"{folder}/tokenizer.json").encode("Yes", add_special_tokens=False)
    with torch.inference_mode():
        whole = [model(torch.tensor([ids])).logits[0, -1, yes.ids[0]].item() for ids in sequences]
    # the whole model rounds its logits to half precision too: half a unit in the last place
    ulp = np.abs(whole).max() * torch.finfo(getattr(torch, dtype)).eps
    np.testing.assert_allclose(scores, whole, rtol=0, atol=noise + ulp)


def test_an_instruction_changes_the_scores() -> None:
    folder = str(GOLDEN / "gemma")
    plain, asked = (
        RerankEngine(folder, device="cpu", instruction=instruction)
        for instruction in (None, "Is the passage about pandas?")
    )
    with plain, asked:
        assert plain.score("q", ["a"]) != asked.score("q", ["a"])


@pytest.mark.parametrize("written_as", [str, lambda text: {"content": text}])
def test_a_first_token_that_pads_too_is_left_out(tmp_path: Path, written_as: Any) -> None:
    """As FlagEmbedding does: ``bos_token_id != pad_token_id``."""
    folder = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / "model"))
    begins = []
    for pad in ("<pad>", "<bos>"):
        edit_json(folder / "tokenizer_config.json", pad_token=written_as(pad))
        engine, scorer = recorded_engine(str(folder), device="cpu", recipe="bge-reranker-v2-gemma")
        with engine:
            engine.score("who?", ["the panda"])
        begins.append(scorer.sequences[0].ids.tolist())
    assert begins[0] == [2, *begins[1]]
    assert 2 not in begins[1]


def test_windows_of_a_decoder_begin_like_a_passage() -> None:
    engine, scorer = recorded_engine(
        str(GOLDEN / "gemma"), device="cpu", max_length=64, long_documents="window"
    )
    with engine:
        engine.score("who?", ["the panda"])
        engine.score("who?", ["the panda eats " * 100])
    short, *windows = scorer.sequences
    assert len(windows) > 3
    begin = short.ids[short.passage_start : short.passage_start + 2].tolist()
    for window in windows:
        passage = window.ids[window.passage_start : window.passage_end].tolist()
        assert passage[:2] == begin
        assert (
            window.ids[: window.passage_start].tolist() == short.ids[: short.passage_start].tolist()
        )


def test_windows_of_a_decoder_are_as_long_as_the_call_says(qwen3: str) -> None:
    settings: Any = {"device": "cpu", "max_length": 160, "long_documents": "window"}
    engine, scorer = recorded_engine(qwen3, **settings)
    with engine:
        engine.score("who?", ["the panda eats " * 100])
    assert len(scorer.sequences) > 3
    assert {len(window) for window in scorer.sequences} == {160}


@pytest.mark.parametrize("name", ["light", "qwen2"])
def test_texts_are_cut_at_a_sliding_window(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond it, some layers would not see all of a pair: the engine has no such layers."""
    whole = request.getfixturevalue("qwen2") if name == "qwen2" else str(GOLDEN / name)
    folder = Path(shutil.copytree(whole, tmp_path / Path(whole).name))
    settings: Any = {"device": "cpu", "dtype": "float32", "normalize": False}
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    types = ["sliding_attention", *["full_attention"] * (layers - 1)]
    changes = {"use_sliding_window": True, "layer_types": types}
    edit_json(folder / "config.json", sliding_window=150, **changes)
    with (
        RerankEngine(str(folder), **settings) as engine,
        RerankEngine(whole, max_length=150, **settings) as short,
    ):
        assert "max_length is 150" in caplog.text
        assert engine.max_length == 150
        assert engine.score_pairs([LONG]) == short.score_pairs([LONG])
    # lightweight models' class knows no switch
    off = {"sliding_window": None} if name == "light" else {"use_sliding_window": False}
    edit_json(folder / "config.json", **{"layer_types": None, **off})
    with RerankEngine(str(folder), max_length=200, device="cpu") as engine:
        assert engine.max_length == 200


@pytest.mark.parametrize("model", ["gemma", "minicpm"])
def test_what_is_refused_is_what_would_be_cut(model: str) -> None:
    settings: Any = {"device": "cpu", "max_length": 64}
    engine, scorer = recorded_engine(str(GOLDEN / model), **settings)
    with engine:
        texts = ["the panda eats " * count for count in range(1, 40)]
        read = {}
        for text in texts:
            engine.score("who?", [text])
            read[text] = scorer.sequences[-1].ids.tolist()
        cut = [text for text in texts if read[text] == read[texts[-1]]]
        fitting = texts[: -len(cut)]
        assert fitting
        for text in fitting:
            engine.score("who?", [text], long_documents="refuse")
            assert scorer.sequences[-1].ids.tolist() == read[text]
        for text in cut[1:]:
            with pytest.raises(InputError, match=f"the model reads {len(read[text])}:"):
                engine.score("who?", [text], long_documents="refuse")
        assert engine.stats().failures == 0


def test_a_query_must_leave_room() -> None:
    with RerankEngine(
        str(GOLDEN / "gemma"), device="cpu", max_length=16, query_max_length=15
    ) as engine:
        assert len(engine.score("a query " * 50, ["text"])) == 1


def test_qwen3_with_too_short_a_length(qwen3: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"max_length must be at least \d+ with \d+ tokens around"
    ):
        RerankEngine(qwen3, device="cpu", max_length=32)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("xlmr", {"instruction": "Find it"}, "instruction must be None for a model that reads"),
        ("xlmr", {"cutoff_layers": 2}, r"cutoff_layers must be None .*layerwise, lightweight"),
        ("gemma", {"cutoff_layers": (2,)}, "cutoff_layers must be None .* decoder family"),
        (
            "minicpm",
            {"compress_ratio": 2},
            r"compress_ratio must be None .*\(it is for lightweight",
        ),
        ("minicpm", {"compress_layers": (3,)}, "compress_layers must be None"),
        ("minicpm", {"cutoff_layers": (1, 4)}, r"within 2\.\.8 .*got \[1, 4\]"),
        ("minicpm", {"cutoff_layers": 9}, r"within 2\.\.8 .*got \[9\]"),
        ("light", {"cutoff_layers": [3, 99]}, r"within 2\.\.8 .*got \[3, 99\]"),
    ],
)
def test_settings_without_a_use_are_refused(
    model: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RerankEngine(str(GOLDEN / model), device="cpu", **settings)


def test_cutoff_layers_are_sorted_and_different() -> None:
    assert EngineConfig(cutoff_layers=[6, 3, 6]).cutoff_layers == (3, 6)  # type: ignore[arg-type]
    assert EngineConfig(cutoff_layers=4).cutoff_layers == (4,)  # type: ignore[arg-type]


def test_layers_above_the_deepest_cutoff_are_not_loaded(
    tmp_path: Path, reference: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(GOLDEN / "minicpm", tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    above = tuple(f"model.layers.{number}." for number in range(5, 8))
    # an engine that loaded these would say that they are missing
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(above)}
    assert len(weights) - len(kept) >= 3
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    settings: Any = {"device": "cpu", "dtype": "float32", "cutoff_layers": (3, 5)}
    with (
        RerankEngine(str(folder), **settings) as engine,
        RerankEngine(str(GOLDEN / "minicpm"), **settings) as whole,
    ):
        expected = whole.score_layers(reference["pairs"])
        for layer, scores in engine.score_layers(reference["pairs"]).items():
            assert scores == pytest.approx(expected[layer], abs=1e-5)
    with pytest.raises(ModelLoadError, match=r"weights are missing .*layers\.5\."):
        RerankEngine(str(folder), device="cpu")


def test_scores_by_layer(reference: dict[str, Any]) -> None:
    with RerankEngine(str(GOLDEN / "minicpm"), device="cpu", cutoff_layers=(6, 3)) as engine:
        by_layer = engine.score_layers(reference["pairs"])
        assert list(by_layer) == [3, 6]
        assert by_layer[6] == pytest.approx(engine.score_pairs(reference["pairs"]), abs=1e-5)
        assert engine.score_layers([]) == {3: [], 6: []}
        again = engine.score_layers(iter(reference["pairs"]))
        assert list(again) == [3, 6]
        assert again[3] == pytest.approx(by_layer[3], abs=1e-5)
        assert again[6] == pytest.approx(by_layer[6], abs=1e-5)
        assert by_layer[3] != pytest.approx(by_layer[6], abs=1e-3)
        short: Any = {"max_length": 32, "normalize": False}
        logits = engine.score_layers(reference["pairs"], **short)
        assert logits[6] == pytest.approx(engine.score_pairs(reference["pairs"], **short), abs=1e-5)
        assert logits[6] != pytest.approx(by_layer[6].logits, abs=1e-3)


@pytest.mark.parametrize("layers", [(2,), (2, 8), (8,)])
def test_the_first_and_the_last_layer_with_a_head_are_scored(layers: tuple[int, ...]) -> None:
    settings: Any = {"device": "cpu", "dtype": "float32", "cutoff_layers": layers}
    with RerankEngine(str(GOLDEN / "minicpm"), **settings) as engine:
        assert list(engine.score_layers([("q", "d")])) == list(layers)


def test_scores_by_layer_need_a_layerwise_model(engine: RerankEngine) -> None:
    with pytest.raises(ConfigurationError, match="score_layers needs a layerwise or lightweight"):
        engine.score_layers([("q", "d")])


@pytest.mark.parametrize("model", ["minicpm", "light"])
def test_missing_heads_are_not_made_up(tmp_path: Path, model: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("lm_head")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"has no weights lm_head\.\d\.linear_head\.weight"):
        RerankEngine(str(folder), device="cpu")


def test_a_checkpoint_in_several_files(tmp_path: Path, reference: dict[str, Any]) -> None:
    folder = Path(shutil.copytree(GOLDEN / "minicpm", tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {name: f"model-{1 + (i % 2)}-of-2.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: weights[name] for name in names if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with RerankEngine(str(folder), dtype="float32", device="cpu", normalize=False) as engine:
        scores = engine.score_pairs(reference["pairs"])
    expected = reference["scores"]["layerwise/default"]["scores"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
