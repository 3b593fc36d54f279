"""Scores the pairs of ``reference_scores.json`` anew, in the settings that the file names.

In an environment of its own::

    pip install FlagEmbedding==1.4.2 transformers==4.46.3 torch
    python tests/golden/make_reference.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from FlagEmbedding import (
    FlagLLMReranker,
    FlagReranker,
    LayerWiseFlagLLMReranker,
    LightWeightFlagLLMReranker,
)

FILE = Path(__file__).with_name("reference_scores.json")
RERANKERS = {
    "xlmr": FlagReranker,
    "gemma": FlagLLMReranker,
    "minicpm": LayerWiseFlagLLMReranker,
    "light": LightWeightFlagLLMReranker,
}


def loadable(folder: Path, temporary: Path) -> Path:
    """A copy that transformers 4.46 loads.

    ``add_prefix_space`` makes it look for a sentencepiece file; ``tokenizer.json`` says the same.
    """
    copy = Path(shutil.copytree(folder, temporary / folder.name))
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8"))
    config.pop("add_prefix_space", None)
    file.write_text(json.dumps(config), "utf-8")
    return copy


def main() -> None:
    """Replace scores and versions in the file."""
    reference = json.loads(FILE.read_text("utf-8"))
    pairs = [tuple(pair) for pair in reference["pairs"]]
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: loadable(FILE.parent / name, Path(temporary)) for name in RERANKERS}
        for setting in reference["scores"].values():
            name = setting["model"]
            # on a CPU FlagEmbedding computes in float32, whatever its warnings say
            reranker = RERANKERS[name](str(folders[name]), devices="cpu", **setting["constructor"])
            setting["scores"] = reranker.compute_score(pairs, **setting["call"])
    for package in ("transformers", "torch", "FlagEmbedding"):
        reference[package] = version(package)
    FILE.write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
