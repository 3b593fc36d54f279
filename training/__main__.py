"""Make the built-in reranker: read, draw lists, train, calibrate, export.

python -m training --pairs mix.jsonl --collections collections --base all-MiniLM-L6-v2 \
    --work /tmp/tiny --out bge_rerank_integrations/models/tiny
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertForSequenceClassification

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import Collection, bm25, rerank
from bge_rerank_integrations.evaluation.calibrating import fit
from bge_rerank_integrations.tuning.data import (
    TrainingList,
    blend_labels,
    validation_samples,
    with_teacher_logits,
)
from bge_rerank_integrations.tuning.train import TrainSettings, load_base, train
from training.lists import ListSampler
from training.negatives import mine
from training.records import Data, as_collection, load
from training.requests import KEYWORDS, SENTENCE, TOPIC, WINDOWS, made_up, sentence_windows
from training.teacher import BiEncoder

# How many lists of each source. Sets close to real use count more, templated or easy ones less.
MIX = {
    "qed-nq-train": 2800,
    "scifact-train": 1200,
    "trecqa-train": 500,
    "selqa-dev": 500,
    "selqa-dev-section": 250,
    "squad-train-sentence-nqg": 2200,
    "squadshifts-new-wiki": 1300,
    "boolq-dev": 800,
    "dolly-open-qa": 1100,
    "quotesum-dev": 80,
    "nq-openbook-short": 80,
    "quac": 300,
    "medquad": 500,
    "pubmedqa": 800,
    "scitldr-tldr": 1000,
    "covid-qa": 400,
    "texfaq": 250,
    "covid-faq-cdc-fda": 80,
    "qamr-wiki": 300,
    TOPIC: 800,
    KEYWORDS: 900,
    SENTENCE: 500,
    WINDOWS: 400,
}
SEED = 13
# First the base's own judgment of a part of the lists, then people's of all of them. A trial at
# higher rates was worse on text unlike the training's: README.md.
TAUGHT_LISTS = 7500
TAUGHT = TrainSettings(1e-4, epochs=1.0, lists_per_step=12, seed=SEED)
JUDGED = TrainSettings(6e-5, epochs=1.0, lists_per_step=12, seed=SEED)
TEACHER_SHARE = 0.3

# Questions of the reserved part that choose between checkpoints, and that calibrate.
CHOOSING, CALIBRATING = 60, 200
DEPTH = 50

TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "tokenize_chinese_chars": True,
    "strip_accents": None,
    "model_max_length": 512,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def main() -> None:
    """Read the arguments and run every step."""
    parser = argparse.ArgumentParser(description="Train the built-in English reranker.")
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines of training pairs")
    parser.add_argument("--collections", type=Path, required=True, help="folder of collections")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training, reserved = load(arguments.pairs, arguments.collections)
    trained = train_stages(
        draw_lists(training), choosing(training, reserved), arguments.base, arguments.work
    )
    scale, shift = calibrate(trained, as_collection("reserved", reserved))
    print(f"calibration: scale {scale:.3f}, shift {shift:.3f}")
    export(trained, arguments.base / "tokenizer.json", arguments.out, scale, shift)


def draw_lists(training: Data) -> list[TrainingList]:
    """Lists of all sources, as many of each as the mix says."""
    # a request's passage lacks the sentence that is asked for: it is no passage of a pool
    asked = [*training.questions, *made_up(training, 1), *sentence_windows(training)]
    data = Data(asked, training.pools)
    lists = ListSampler(data, mine(data), seed=2).draw(MIX)
    print(f"{len(lists)} lists, {sum(len(one.documents) for one in lists)} pairs", flush=True)
    return lists


def choosing(training: Data, reserved: Data) -> list[dict[str, Any]]:
    """Samples of reserved questions that choose between checkpoints."""
    # among all passages wrong ones are as near as in a large corpus
    pools = {name: training.pools.get(name, []) + pool for name, pool in reserved.pools.items()}
    collection = as_collection("all passages", Data(reserved.questions, pools))
    found = bm25(collection.sample(CHOOSING), DEPTH)
    return validation_samples(collection, found, CHOOSING)


def train_stages(
    lists: Sequence[TrainingList], samples: Sequence[dict[str, Any]], base: Path, work: Path
) -> Path:
    """Train one stage after the other; each goes on from the best checkpoint of the one before.

    :param samples: what chooses between checkpoints.
    :returns: folder of the trained model.
    """
    start = work / "start"
    new_head(base, start)
    model = load_base(start, max_length=512)
    logits = with_teacher_logits(lists, BiEncoder(base))
    stages = (
        ("taught", logits[:TAUGHT_LISTS], TAUGHT),
        ("judged", blend_labels(lists, logits, TEACHER_SHARE), JUDGED),
    )
    for name, of_stage, settings in stages:
        steps = train(
            model, of_stage, samples, work / name, settings,
            has_teacher_logits=name == "taught", show_progress=True,
        )  # fmt: skip
        print(f"{name}: {steps} steps", flush=True)
    trained = work / "trained"
    model.save_pretrained(str(trained), create_model_card=False)
    return trained


def new_head(base: Path, folder: Path) -> None:
    """Write the encoder with a fresh head of one logit."""
    torch.manual_seed(SEED)
    BertForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def calibrate(folder: Path, collection: Collection) -> tuple[float, float]:
    """Scale and shift that make probabilities of the logits, on BM25's first fifty of questions."""
    collection = collection.sample(CALIBRATING)
    found = bm25(collection, DEPTH)
    with RerankEngine(str(folder), normalize=False, dtype="auto") as engine:
        run = rerank("trained", engine, collection, found)
    logits, relevant = [], []
    for query, documents in run.order.items():
        logits += run.scores[query]
        relevant += [collection.relevance[query].get(name, 0) > 0 for name in documents]
    return fit(logits, relevant)


def export(trained: Path, tokenizer_file: Path, folder: Path, scale: float, shift: float) -> None:
    """Write config, float16 weights and the tokenizer without padding or truncation of its own.

    Scale and shift of the logit are folded into the head.
    """
    weights = load_file(trained / "model.safetensors")
    weights["classifier.weight"] *= scale
    weights["classifier.bias"] = weights["classifier.bias"] * scale + shift
    config = BertForSequenceClassification.config_class.from_pretrained(trained)
    config.id2label, config.label2id = {0: "relevance"}, {"relevance": 0}
    config.dtype = "float16"
    # the trainer has turned it off
    config.use_cache = True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    weights_file = folder / "model.safetensors"
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    save_file(halves, weights_file, metadata={"format": "pt"})
    # safetensors writes files that only their owner can read, and a wheel keeps that.
    weights_file.chmod(0o644)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    config_text = json.dumps(TOKENIZER_CONFIG, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(config_text, encoding="utf-8")


if __name__ == "__main__":
    main()
