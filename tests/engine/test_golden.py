"""All families against FlagEmbedding 1.4.2 (transformers 4.46.3, float32), on tiny checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import DEVICES
from paths import GOLDEN
from safetensors.torch import load_file, save_file

from bge_rerank_integrations import RerankEngine

EXACT = 1e-5

# root mean square of half precision's errors, as a share of the scores' standard deviation; a
# constant answer has a share of 1. Half as much again as measured at most, with native bfloat16
# (AVX512-BF16) and without.
HALF = {"bfloat16": 0.1, "float16": 0.014}
# these tiny models hardly tell one pair from another: attention that adds more makes them
QUIET = ("gemma", "minicpm")


def golden_engine(golden: dict[str, Any], **settings: Any) -> RerankEngine:
    """An engine with the settings that the reference was run with."""
    given = {"normalize": False, **golden["constructor"], **golden["call"], **settings}
    return RerankEngine(str(GOLDEN / golden["model"]), **given)


def settings() -> list[str]:
    return list(json.loads((GOLDEN / "reference_scores.json").read_text("utf-8"))["scores"])


@pytest.mark.parametrize(
    ("setting", "max_batch_tokens"),
    [(setting, None) for setting in settings()]
    # one batch for each text, where all settings of a family form batches alike
    + [(setting, 100) for setting in settings() if setting.endswith("/default")],
)
@pytest.mark.parametrize("device", DEVICES)
def test_scores_equal_the_reference(
    reference: dict[str, Any], setting: str, max_batch_tokens: int | None, device: str
) -> None:
    golden = reference["scores"][setting]
    layers = golden["call"].get("cutoff_layers", [])
    given = {"dtype": "float32", "device": device, "max_batch_tokens": max_batch_tokens}
    with golden_engine(golden, **given) as engine:
        if len(layers) > 1:
            by_layer = engine.score_layers(reference["pairs"])
            assert list(by_layer) == layers
            scores = list(by_layer.values())
            assert engine.score_pairs(reference["pairs"]) == pytest.approx(scores[-1], abs=EXACT)
        else:
            scores = engine.score_pairs(reference["pairs"])
    np.testing.assert_allclose(scores, golden["scores"], rtol=0, atol=EXACT)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoints, with attention four times as wide in values and outputs of some."""
    folder = tmp_path_factory.mktemp("golden")
    for model in QUIET:
        shutil.copytree(GOLDEN / model, folder / model)
        tensors = load_file(folder / model / "model.safetensors")
        for name, tensor in tensors.items():
            if name.endswith(("v_proj.weight", "o_proj.weight")):
                tensors[name] = 4 * tensor
        save_file(tensors, folder / model / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("setting", settings())
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_stays_close(
    reference: dict[str, Any], setting: str, device: str, checkpoints: Path
) -> None:
    golden = reference["scores"][setting]
    scores = {}
    for dtype in ("float32", *HALF):
        given = {"normalize": False, **golden["constructor"], **golden["call"], "device": device}
        folder = (checkpoints if golden["model"] in QUIET else GOLDEN) / golden["model"]
        # a fifth of the pairs: half precision takes far longer here than float32
        with RerankEngine(str(folder), dtype=dtype, **given) as engine:
            scores[dtype] = np.array(engine.score_pairs(reference["pairs"][::5]))
    for dtype, bound in HALF.items():
        error = np.sqrt(np.mean((scores[dtype] - scores["float32"]) ** 2))
        assert error < bound * np.std(scores["float32"])


@pytest.mark.parametrize(
    "setting",
    ["decoder/default", "layerwise/default",
     "lightweight/cutoff_layers=[7],compress_ratio=2,compress_layers=[2, 5]"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("dtype", "noise"), [("float32", 1e-5), ("bfloat16", 0.026), ("float16", 0.0024)]
)
@pytest.mark.parametrize("device", DEVICES)
def test_a_score_does_not_depend_on_its_batch(
    reference: dict[str, Any], setting: str, dtype: str, noise: float, device: str
) -> None:
    """Bounds of half precision: what padding alone moves the reference's scores."""
    with golden_engine(reference["scores"][setting], dtype=dtype, device=device) as engine:
        pairs = reference["pairs"][::4]
        together = engine.score_pairs(pairs)
        alone = [engine.score_pairs([pair])[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, rtol=0, atol=noise)
