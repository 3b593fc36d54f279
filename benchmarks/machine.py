"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")


def describe_machine() -> dict[str, object]:
    """CPU, cores, instruction sets, load, operating system and torch.

    Where oneDNN is told to use no newer instructions than some, these are named.
    """
    hidden = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return {
        "cpu": _cpu_field("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in _FLAGS if flag in _cpu_field("flags").split()],
        **({"newest_instructions_of_onednn": hidden} if hidden else {}),
        "load_1_min": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def machine_name() -> str:
    """A name for results' folder: the processor, and the newest instructions that oneDNN may use.

    AMD's and Intel's processors of several generations give the same name without these.
    """
    flags = _cpu_field("flags").split()
    newest = next((flag for flag in reversed(_FLAGS) if flag in flags), platform.machine())
    hidden = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower().replace("_core", "")
    cpu = _cpu_field("model name") or platform.processor() or "cpu"
    return re.sub(r"[^a-z0-9_]+", "-", f"{cpu} {hidden or newest}".lower())


def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, and oneDNN is not told to hide it."""
    hidden = os.environ.get("ONEDNN_MAX_CPU_ISA", "bf16").lower()
    has_it = {"avx512_bf16", "amx_bf16"} & set(_cpu_field("flags").split())
    return bool(has_it) and ("bf16" in hidden or "amx" in hidden)


def versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def memory_mib(kind: str, process: int | str = "self") -> float:
    """Memory of a process, on Linux.

    :param kind: ``"VmRSS"`` is resident now, ``"VmHWM"`` at most so far, ``"RssAnon"`` what no file
        backs.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {kind} of a process")


def _cpu_field(name: str) -> str:
    """A field of ``/proc/cpuinfo``, empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
