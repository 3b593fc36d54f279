"""What a CUDA device is, and the fastest that it multiplies and copies."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import torch

# dense bfloat16 TFLOP/s by NVIDIA's datasheets; the more exact name first
_PEAKS = {
    "H200 NVL": 835,
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
}
_ASKED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


def peak_tflops(device: torch.device) -> float | None:
    """The datasheet's dense bfloat16 rate; None for a device that is not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((float(peak) for part, peak in _PEAKS.items() if part in name), None)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, memory, versions and clocks of a CUDA device; of any other its type alone."""
    if device.type != "cuda":
        return {"device": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": list(torch.cuda.get_device_capability(device)),
        "memory_mib": properties.total_memory >> 20,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "datasheet_tflops": peak_tflops(device),
        **_nvidia_smi(),
    }


def measured_rates(device: torch.device, dtype: torch.dtype, *, side: int) -> dict[str, float]:
    """TFLOP/s of a square product on random data, and GB/s of a copy, read and written.

    :param side: rows of the square matrices.
    """
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    product_s = _seconds_of(lambda: left @ right, device)
    source = torch.randn(side, side, 8, device=device)
    target = torch.empty_like(source)
    copy_s = _seconds_of(lambda: target.copy_(source), device)
    return {
        "tflops": round(2 * side**3 / product_s / 1e12, 1),
        "copy_gb_per_s": round(2 * source.nbytes / copy_s / 1e9),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds_of(work: Any, device: torch.device, repeats: int = 10) -> float:
    for _ in range(3):
        work()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def _nvidia_smi() -> dict[str, str]:
    """What nvidia-smi says of the first device; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.splitlines()[0].split(", ")
    return dict(zip(_ASKED, values, strict=False))
