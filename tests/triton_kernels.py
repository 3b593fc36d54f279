"""The package's Triton kernels without a GPU; in a process of its own, which prints one object.

``compile`` makes the kernels' machine code for devices that are not there, ``interpret`` computes
their results on the CPU, and ``scores FOLDER…`` those of whole models. Triton's library reports
leaks of its own to stderr when it ends.

python -m tests.triton_kernels compile
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MODE = sys.argv[1] if __name__ == "__main__" else ""
if MODE in ("interpret", "scores"):
    # read where a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
import triton  # noqa: E402
from torch.nn import functional  # noqa: E402

from bge_rerank_integrations.engine.scorers import kernels  # noqa: E402

ARCHITECTURES = (80, 90, 100)
_POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
# heads of a rotation, tokens of a batch
_HEADS, _TOKENS = 24, 5

Case = tuple[str, Callable[[], torch.Tensor], torch.Tensor]


def cases(dtype: torch.dtype) -> Iterator[Case]:
    """Each kernel with the sizes of released models: its name, a call, what it must give."""
    torch.manual_seed(0)

    def rows(n: int, *, tokens: int = _TOKENS) -> torch.Tensor:
        return torch.randn(tokens, n).to(dtype)

    for n in (128, 384, 768, 1024):
        states, residual, weight, bias = rows(n), rows(n), rows(n)[0], rows(n)[0]
        for given in (bias, None):
            norm = kernels.FusedNorm(weight, given, 1e-5)
            total = states + residual
            expected = functional.layer_norm(total, (n,), weight, given, 1e-5)
            yield (
                f"sum, norm {n}, bias {given is not None}",
                lambda norm=norm, states=states, residual=residual: norm.of_sum(
                    torch.clone, states, residual
                ),
                expected,
            )
            yield (
                f"sum and norm {n}, bias {given is not None}",
                lambda norm=norm, states=states, residual=residual: torch.cat(
                    norm.sum_and_norm(torch.clone, states, residual)
                ),
                torch.cat([total, expected]),
            )
    for n, offset in ((128, 0.0), (1024, 0.0), (2048, 1.0), (2304, 0.0), (3584, 1.0)):
        states, weight = rows(n), rows(n)[0]
        yield (
            f"RMS norm {n}",
            lambda states=states, weight=weight, offset=offset: kernels.rms_norm(
                states, weight, 1e-6, offset
            ),
            functional.rms_norm(states, (n,), weight + offset, 1e-6),
        )
    activations: dict[kernels.Activation, Callable[[torch.Tensor], torch.Tensor]] = {
        "gelu": functional.gelu,
        "gelu_tanh": lambda states: functional.gelu(states, approximate="tanh"),
        "silu": functional.silu,
    }
    for activation, compute in activations.items():
        for n in (576, 1152, 3072):
            gate, value = rows(2 * n).unflatten(1, (2, n)).unbind(1)
            # an exponential of the last overflows
            gate[0, :3] = torch.tensor([-100.0, 100.0, -30.0])
            yield (
                f"gate {activation} {n}",
                lambda gate=gate, value=value, activation=activation: kernels.activate_gate(
                    gate, value, activation
                ),
                compute(gate) * value,
            )
    states = rows(3 * _HEADS * 32).unflatten(1, (-1, 64))
    angles = torch.randn(_TOKENS, 32)
    turned = torch.view_as_complex(states[:, :_HEADS].float().unflatten(-1, (-1, 2)))
    turned = turned * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)

    def rotated() -> torch.Tensor:
        copy = states.clone()
        kernels.rotate_(copy[:, :_HEADS], *torch.stack([angles.cos(), angles.sin()], 1).unbind(1))
        return copy

    expected = torch.cat([torch.view_as_real(turned).flatten(-2).to(dtype), states[:, _HEADS:]], 1)
    yield "rotation", rotated, expected


def interpret() -> dict[str, float]:
    """The largest difference of each call to torch, in float32."""
    with torch.inference_mode(), warnings.catch_warnings():
        # numpy says so of an exponential that is meant to overflow
        warnings.filterwarnings("ignore", message="overflow")
        return {
            name: float((call() - expected).abs().max())
            for name, call, expected in cases(torch.float32)
        }


def scores(folders: list[str]) -> dict[str, float]:
    """The largest difference of whole models' scores with these kernels to those without."""
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.engine.scorers import linear

    pairs = [("what is a panda?", "a bear of China"), ("a b", "x" * 40), ("panda", "")]
    launches = [0]
    launch = kernels.launch

    def counted(*given: Any, **constants: Any) -> None:
        launches[0] += 1
        launch(*given, **constants)

    def scored(folder: str) -> torch.Tensor:
        with RerankEngine(folder, device="cpu", dtype="float32", normalize=False) as engine:
            return torch.tensor(engine.score_pairs(pairs))

    expected = {folder: scored(folder) for folder in folders}
    kernels.launch = counted
    kernels.is_available = lambda _: True  # type: ignore[assignment]
    linear._is_half_on_cuda = lambda _: True
    differences = {}
    for folder in folders:
        launches[0] = 0
        difference = float((scored(folder) - expected[folder]).abs().max())
        assert launches[0], folder
        differences[Path(folder).name] = difference
    return differences


def compile_all() -> list[dict[str, Any]]:
    """Registers and spills of each kernel on each device, the largest of all its cases."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def compile_one(kernel: Any, _: object, *given: Any, **constants: Any) -> None:
        for capability in ARCHITECTURES:
            usage = _usage(_cubin(kernel, given, dict(constants), capability))
            row = {"name": kernel.fn.__name__, "arch": f"sm_{capability}", **usage}
            before = found.setdefault((row["name"], row["arch"]), row)
            for key in ("registers", "spills"):
                before[key] = max(before[key], row[key])

    kernels.launch = compile_one
    for _, call, _ in cases(torch.bfloat16):
        call()
    return [found[key] for key in sorted(found)]


def _cubin(kernel: Any, given: Any, constants: dict[str, Any], capability: int) -> bytes:
    """A kernel's machine code, specialized as for these arguments."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {"num_warps": constants.pop("num_warps"), "enable_fp_fusion": True}
    signature, attributes = {}, {}
    for number, (name, value) in enumerate(zip(kernel.arg_names, given, strict=False)):
        if torch.is_tensor(value):
            signature[name] = _POINTERS[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        is_special = torch.is_tensor(value) or (isinstance(value, int) and value % 16 == 0)
        if is_special and name not in kernel.do_not_specialize:
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel, {**signature, **dict.fromkeys(constants, "constexpr")}, constants, attributes
    )
    target = GPUTarget("cuda", capability, 32)
    cubin: bytes = triton.compile(source, target=target, options=options).asm["cubin"]
    return cubin


def _usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run(
            [str(tool), "-res-usage", str(path)], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (
        int(re.search(rf"{key}:(\d+)", text)[1])  # type: ignore[index]
        for key in ("REG", "STACK", "LOCAL")
    )
    return {"registers": registers, "spills": stack + local}


if __name__ == "__main__":
    modes: dict[str, Callable[[], Any]] = {
        "compile": compile_all,
        "interpret": interpret,
        "scores": lambda: scores(sys.argv[2:]),
    }
    print(json.dumps(modes[MODE]()))  # noqa: T201
