"""What a run's numbers depend on beside its settings: versions, hardware, the commit."""

import os
import platform
import subprocess
from pathlib import Path

import torch

PACKAGE = Path(__file__).parent.parent


def describe_environment(device: torch.device, precision: str, processes: int) -> dict:
    """The versions and the hardware that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "hardware": _hardware(device),
        "threads": torch.get_num_threads(),
        "mixed_precision": precision,
        "processes": processes,
        "commit": _commit(),
    }


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory in use at any time, in MiB: a GPU's own, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _commit() -> str | None:
    """The commit of the checkout that holds this package, "-dirty" where the package differs."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], check=True,
                       capture_output=True)  # fmt: skip
        commit, changes = (
            subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "."))
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed package
        return None
    return commit.strip() + ("-dirty" if changes else "")


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].split(":")[1].strip() if models else name
    return f"{name}, {os.cpu_count()} cores"
