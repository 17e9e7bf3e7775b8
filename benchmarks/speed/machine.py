"""Describe the machine of a measurement: processor, capability, cores."""

import os
import platform
import subprocess
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Such as "Intel Xeon (family 6, model 207), 2 cores, AVX512, 2 threads"."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_processor()}, {os.cpu_count()} cores, {capability}, {torch.get_num_threads()} threads"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = dict(line.split("\t:", 1) for line in cpuinfo.read_text(encoding="utf-8").splitlines() if "\t:" in line)
        facts = {name.strip(): value.strip() for name, value in facts.items()}
        if "model name" in facts:  # in a virtual machine it may be only the brand
            return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"
    if platform.system() == "Darwin":
        name = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(name, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()
