"""A tiny checkpoint tuned end to end; runs where the extra ``tune`` is installed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import SMALL, save_random
from processes import Process
from safetensors.torch import load_file
from transformers import BertConfig, Qwen2Config
from typer.testing import CliRunner

from bge_rerank_integrations import ConfigurationError, InputError, ModelLoadError, RerankEngine

pytest.importorskip("accelerate")
pytest.importorskip("datasets")

from sentence_transformers import CrossEncoder

from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.evaluation import Collection, Run
from bge_rerank_integrations.langchain import BGERerank as LangChainRerank
from bge_rerank_integrations.llama_index import BGERerank as LlamaIndexRerank
from bge_rerank_integrations.tuning import train as training
from bge_rerank_integrations.tuning import tune
from bge_rerank_integrations.tuning.data import validation_samples
from bge_rerank_integrations.tuning.tune import Tuned, learning_rate

# transformers and accelerate warn of each other
pytestmark = pytest.mark.filterwarnings("default")

# what is asked for is told by one letter alone
LETTERS = "abcdefghij"
ROWS = [
    {
        "query": f"which paper has {letter * 4} number {n}",
        "pos": [f"{letter * 4} {n} paper of that"],
        "neg": [f"{other * 4} {n} paper of that" for other in LETTERS if other != letter],
    }
    for n in range(4)
    for letter in LETTERS
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "letters.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), "utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_random(BertConfig(**SMALL, num_labels=1), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(data: Path, base: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tuned") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        # on so few questions chance decides, and a base that is kept shows nothing of the training
        patch.setattr(Tuned, "is_better", True)
        return tune(data, folder, base=base, epochs=3, held_out=0.3)


def test_every_way_to_load_it_gives_its_scores(tuned: Any) -> None:
    folder = str(tuned.folder)
    query, documents = ROWS[0]["query"], [*ROWS[0]["pos"], *ROWS[0]["neg"]]
    with RerankEngine(folder, dtype="float32", normalize=False, device="cpu") as engine:
        scores = engine.score(query, documents)
    encoder = CrossEncoder(folder, device="cpu")
    pairs = [(query, document) for document in documents]
    reference = encoder.predict(pairs, activation_fn=torch.nn.Identity())
    assert scores == pytest.approx(reference.tolist(), abs=1e-5)
    for kind in (LlamaIndexRerank, LangChainRerank):
        assert kind(model=folder, dtype="float32").model == folder


def test_the_weights_have_changed_and_the_checkpoints_are_gone(tuned: Any, base: str) -> None:
    assert not (tuned.folder / "checkpoints").exists()
    names = {path.name for path in tuned.folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    query, documents = ROWS[0]["query"], ROWS[0]["pos"]
    scores = []
    for model in (base, str(tuned.folder)):
        with RerankEngine(model, dtype="float32", device="cpu") as engine:
            scores.append(engine.score(query, documents)[0])
    assert abs(scores[0] - scores[1]) > 1e-4


def test_word_embeddings_stay_and_other_weights_move(tuned: Any, base: str) -> None:
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (base, tuned.folder)
    )
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert "bert.embeddings.word_embeddings.weight" in still
    assert "bert.embeddings.position_embeddings.weight" not in still
    assert "bert.encoder.layer.0.attention.self.query.weight" not in still


def test_the_report_and_the_card_tell_what_was_measured(tuned: Any, base: str) -> None:
    counts, report = tuned.counts, tuned.report
    assert counts.training + counts.validation + counts.held_out == len(ROWS)
    assert (counts.held_out, counts.validation, counts.pairs) == (12, 6, 22 * 7)
    assert [system.name for system in report.systems] == ["BM25", base, "tuned"]
    assert report.queries == 12
    card = (tuned.folder / "README.md").read_text("utf-8")
    assert "on 22 questions about 40 documents (154 pairs)" in card
    assert f"{report.systems[-1].means['nDCG@10']:.4f}" in card
    assert "| seed | 0 |" in card


def test_a_model_that_is_no_better_leaves_the_base(
    data: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("bge_rerank_integrations.tuning.tune")

    def worse(*given: Any) -> Any:
        held_out, found, *_ = given
        assert not (tmp_path / "mine" / "model.safetensors").exists()
        order = {query: names[::-1] for query, names in found.order.items()}
        runs = [found, Run(base, found.order), Run("tuned", order)]
        return module.summarize(held_out, runs)

    monkeypatch.setattr(module, "_before_and_after", worse)
    result = tune(data, tmp_path / "mine", base=base, epochs=1, held_out=0.3)
    assert result.gain < 0
    assert not result.is_better
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (base, result.folder)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = (result.folder / "README.md").read_text("utf-8")
    assert f"**The weights here are those of `{base}`" in card
    assert "| weights in this folder | the base's |" in card


def test_held_out_questions_never_enter_training(
    data: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}

    def record(
        model: Any, lists: Any, validation: Any, folder: Path, settings: Any, **given: Any
    ) -> Any:
        seen["training"] = {one.query for one in lists}
        seen["validation"] = {one["query"] for one in validation}
        folder.mkdir(parents=True)
        return 0

    monkeypatch.setattr(training, "train", record)
    report = tune(data, tmp_path / "mine", base=base, held_out=0.3).report
    held_out = report.systems[0].values["nDCG@10"]
    texts = {row["query"] for row in ROWS} - seen["training"] - seen["validation"]
    assert len(texts) == len(held_out) == 12
    assert not seen["training"] & seen["validation"]


PROGRAM = """
import sys
from bge_rerank_integrations.tuning import tune
tune(sys.argv[1], sys.argv[2], base=sys.argv[3], epochs=float(sys.argv[4]), held_out=0.3)
"""


def wait_for_a_checkpoint(process: Process, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def test_a_run_that_was_killed_goes_on(data: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    process = Process(PROGRAM, str(data), str(folder), base, "12")
    try:
        wait_for_a_checkpoint(process, folder)
        process.send_signal(signal.SIGKILL)
    finally:
        process.end()
    plan = json.loads((folder / "checkpoints" / "plan.json").read_text())
    (state, *_) = sorted(folder.glob("checkpoints/checkpoint-*/trainer_state.json"))
    assert 0 < json.loads(state.read_text())["global_step"] < plan["steps"]
    with pytest.raises(ConfigurationError, match="checkpoints of other data or another seed"):
        tune(data, folder, base=base, epochs=12, held_out=0.3, seed=1)
    steps = []
    original = training.CrossEncoderTrainer.training_step

    class Counted(training.CrossEncoderTrainer):  # type: ignore[misc]
        def training_step(self, *given: Any, **named: Any) -> Any:
            steps.append(1)
            return original(self, *given, **named)

    training.CrossEncoderTrainer, kept = Counted, training.CrossEncoderTrainer
    try:
        tune(data, folder, base=base, epochs=12, held_out=0.3)
    finally:
        training.CrossEncoderTrainer = kept
    assert 0 < len(steps) < plan["steps"]
    assert (folder / "model.safetensors").is_file()


def test_an_interrupt_keeps_the_best_so_far(data: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    process = Process(PROGRAM, str(data), str(folder), base, "40")
    try:
        wait_for_a_checkpoint(process, folder)
        plan = json.loads((folder / "checkpoints" / "plan.json").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.end()
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "checkpoints").exists()
    (steps,) = re.findall(r"\| steps \| (\d+) \|", (folder / "README.md").read_text("utf-8"))
    assert 0 < int(steps) < plan["steps"]


def test_half_precision_trains_on_a_cpu(
    data: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on processors that compute bfloat16 natively
    monkeypatch.setattr(training, "resolve_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(training, "resolve_device", lambda _: torch.device("cpu"))
    tuned = tune(data, tmp_path / "mine", base=base, epochs=0.5, held_out=0.3)
    assert (tuned.folder / "model.safetensors").is_file()


def test_a_list_of_one_document_is_filled_up_for_validation() -> None:
    documents = {"a": "plum", "b": "pear", "c": "fig"}
    collection = Collection("c", {"q": "fig"}, documents, {"q": {"c": 1}})
    (sample,) = validation_samples(collection, Run("r", {"q": ["c"]}))
    assert sample["positive"] == ["fig"]
    assert sample["documents"] == ["fig", "plum", "pear"]


def loss_of(logits: list[float], *labels: list[float], has_teacher_logits: bool = False) -> float:
    """The loss of lists whose documents get these logits, in order."""

    class Model(torch.nn.Module):
        device = torch.device("cpu")

        def preprocess(self, pairs: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
            assert len(pairs) == len(logits)
            return {}

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"scores": torch.tensor(logits)[:, None]}

    loss = training.ListLoss(Model(), has_teacher_logits=has_teacher_logits)
    documents = [["d"] * len(of_list) for of_list in labels]
    return float(loss([["q"] * len(labels), documents], [torch.tensor(one) for one in labels]))


def test_the_loss_compares_within_lists() -> None:
    two, one = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([0.5, 1.5])
    listwise = (
        # two relevant documents share the probability
        -0.5 * (two.log_softmax(0)[0] + two.log_softmax(0)[2]) - one.log_softmax(0)[0]
    ) / 2
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    pointwise = -torch.nn.functional.logsigmoid(signs * torch.cat([two, one])).mean()
    wanted = float(listwise + 0.2 * pointwise)
    assert loss_of([2.0, 0.0, -1.0, 0.5, 1.5], [1.0, 0.0, 1.0], [1.0, 0.0]) == pytest.approx(wanted)


def test_the_loss_takes_a_teachers_logits() -> None:
    taught = loss_of([2.0, 0.0, 0.5], [1.0, -1.0], [0.5], has_teacher_logits=True)
    assert taught == pytest.approx(2 / 3)


@pytest.mark.parametrize(("of_mean", "share"), [(0.8, 0.5), (0.9, 0.5), (0.7, 1.0)])
def test_the_mean_of_the_weights_stays_unless_it_ranks_worse(
    base: str, monkeypatch: pytest.MonkeyPatch, of_mean: float, share: float
) -> None:
    model = training.load_base(Path(base), 512)
    before = training.weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    ndcg = iter([0.8, of_mean])
    monkeypatch.setattr(
        training._Validation, "__call__", lambda *_: {"validation_ndcg@10": next(ndcg)}
    )
    sample = {"query": "q", "positive": ["a"], "documents": ["a", "b"]}
    assert training.average(model, before, [sample]) is (share == 0.5)
    names = {name for name, _ in model.named_parameters()}
    for name, value in model.state_dict().items():
        moved = share if name in names else 0.0
        torch.testing.assert_close(value, before[name] + moved)


@pytest.mark.parametrize(("width", "rate"), [(16, 1e-4), (384, 1e-4), (1024, 3.75e-5)])
def test_a_wide_encoder_has_a_lower_learning_rate(width: int, rate: float) -> None:
    class Module:
        auto_model = SimpleNamespace(config=BertConfig(hidden_size=width, num_attention_heads=8))

    model: Any = [Module()]
    assert learning_rate(model) == pytest.approx(rate)


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 24), (6.0, 8)])
def test_minutes_are_at_most_three_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    monkeypatch.setattr(training, "_seconds_of_step", lambda *_: seconds)
    settings = training.TrainSettings(1e-4, minutes=1)
    rows: list[dict[str, Any]] = [{}] * 40
    loss: Any = None
    assert training._planned_steps(tmp_path, loss, rows, settings) == steps


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"minutes": 0}, ConfigurationError, "minutes must be"),
        ({"epochs": 0}, ConfigurationError, "epochs must be"),
        ({"first_stage": "gone.run"}, InputError, "gone.run"),
    ],
)
def test_wrong_settings_are_told_before_any_time_is_spent(
    data: Path,
    base: str,
    tmp_path: Path,
    given: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        tune(data, tmp_path / "mine", base=base, **given)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["data", "first_stage"])
def test_a_missing_file_is_told_before_the_base_is_loaded(
    data: Path, tmp_path: Path, name: str
) -> None:
    given = {"data": data, "first_stage": None} | {name: tmp_path / "missing.jsonl"}
    with pytest.raises(InputError, match=r"missing\.jsonl: No such file"):
        tune(**given, out=tmp_path / "mine", base=str(tmp_path / "no-model"))


def test_wrong_data_and_shares_are_told_before_the_base_is_loaded(
    data: Path, tmp_path: Path
) -> None:
    out, base = tmp_path / "mine", str(tmp_path / "no-model")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"query": "q", "pos": []}\n', "utf-8")
    with pytest.raises(InputError, match=r"lines\.jsonl:1: 'pos' must have at least one text"):
        tune(lines, out, base=base)
    with pytest.raises(ConfigurationError, match="held_out must be a share"):
        tune(data, out, base=base, held_out=0.9)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_teacher_that_memory_cannot_hold_is_refused_before_anything_takes_time(
    data: Path, base: str, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("BM25 has begun")

    # the package gives the function the module's name
    module = import_module("bge_rerank_integrations.tuning.tune")
    monkeypatch.setattr(module, "resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr(module, "resolve_dtype", lambda *_: torch.float16)
    monkeypatch.setattr(module, "bm25", fail)
    tensors = load_file(Path(base) / "model.safetensors")
    needed = sum(tensor.numel() for tensor in tensors.values()) * 2
    for free, error, message in (
        (needed - 1, ModelLoadError, f"{device} has 0.0 GB free"),
        (needed, AssertionError, "BM25 has begun"),
    ):
        memory = SimpleNamespace(available=free if device == "cpu" else 0)
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**12))
        with pytest.raises(error, match=message):
            module.prepare(module.read(data, teacher=base), teacher=base)


def test_a_decoder_is_refused(data: Path, tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=32, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    folder = save_random(config, tmp_path / "decoder")
    with pytest.raises(ConfigurationError, match="base must be an encoder with one output"):
        tune(data, tmp_path / "mine", base=folder)


def test_a_folder_that_holds_a_model_is_not_written_over(
    data: Path, base: str, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="holds a model already"):
        tune(data, tmp_path / "mine", base=base)


def test_check_counts_and_trains_nothing(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(data), "--check", "--held-out", "0.3"])
    assert result.exit_code == 0
    assert result.stdout == (
        "40 documents; 22 questions train with 154 pairs, 6 choose between checkpoints, "
        "12 measure\n"
    )


def test_the_command_says_whether_it_is_better(data: Path, base: str, tmp_path: Path) -> None:
    command = ["tune", str(data), "--base", base, "--epochs", "0.5", "--held-out", "0.3"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "mine")])
    is_better = "is no better than" not in result.stderr
    assert result.exit_code == (0 if is_better else 1), result.output
    assert ("was not kept" in result.stderr) is not is_better
    assert "tuned against" in result.stdout
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "--out" in result.stderr
