"""The processor that a program runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor(device: str | torch.device = "cpu") -> str:
    """The name of the CPU or GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
