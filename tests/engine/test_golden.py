"""All families against FlagEmbedding 1.4.2 (transformers 4.46.3, float32), on tiny checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from devices import DEVICES
from paths import GOLDEN

from bge_rerank_integrations import RerankEngine

EXACT = 1e-5

# half precision against float32, by how much each tiny model amplifies rounding: a third more than
# what was measured, the most of all its settings, with native bfloat16 (AVX512-BF16) and without
HALF = {
    "encoder": {"bfloat16": 0.021, "float16": 0.0045},
    "decoder": {"bfloat16": 0.135, "float16": 0.0102},
    "layerwise": {"bfloat16": 0.034, "float16": 0.0034},
    "lightweight": {"bfloat16": 0.073, "float16": 0.0068},
}


def golden_engine(golden: dict[str, Any], **settings: Any) -> RerankEngine:
    """An engine with the settings that the reference was run with."""
    given = {"normalize": False, **golden["constructor"], **golden["call"], **settings}
    return RerankEngine(str(GOLDEN / golden["model"]), **given)


def settings() -> list[str]:
    import json

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


@pytest.mark.parametrize("setting", settings())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_stays_close(
    reference: dict[str, Any], setting: str, dtype: str, device: str
) -> None:
    golden = reference["scores"][setting]
    expected = np.atleast_2d(golden["scores"])[-1]
    # a fifth of them: half precision takes far longer here than float32
    with golden_engine(golden, dtype=dtype, device=device) as engine:
        scores = engine.score_pairs(reference["pairs"][::5])
    np.testing.assert_allclose(
        scores, expected[::5], rtol=0, atol=HALF[setting.split("/")[0]][dtype]
    )


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
