"""The machine, as a record has it: hardware, memory, threads, and the commit of the code."""

import os
import platform
import subprocess
from pathlib import Path

import torch
from accelerate import Accelerator

from .checkpoint import load_checkpoint

PACKAGES = "vae", "vae_show", "vae_store"  # what a commit has to hold for a run to be repeated


def describe_environment(machine: Accelerator) -> dict:
    """The versions and the hardware that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": machine.device.type,
        "hardware": hardware(machine.device),
        "threads": torch.get_num_threads(),
        "mixed_precision": machine.mixed_precision,
        "processes": machine.num_processes,
        "commit": commit(),
    }


def hardware(device: torch.device) -> str:
    """The name of a GPU; or of the CPU, and how many cores it has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if "model name" in line), name)
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str | None:
    """The commit of the checkout that holds this package, "-dirty" where the packages differ."""

    def git(*command: str) -> str:
        command = ("git", "-C", str(Path(__file__).parents[1]), *command)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        git("ls-files", "--error-unmatch", __file__)
        changed = git("status", "--porcelain", *PACKAGES)
        return git("rev-parse", "HEAD").strip() + "-dirty" * bool(changed)
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed package
        return None


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory ever in use, in MiB: a GPU's own, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_memory(device: torch.device) -> float:
    """Bytes that a GPU has in all; infinite where images are in the CPU's memory anyway."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else float("inf")


def take_threads(number: int | None, checkpoint: Path) -> None:
    """Let PyTorch compute with so many CPU threads; None: with as many as before a cut, if known.

    How a sum is split decides its last bit: the same weights need the same number. Of more threads
    than cores, which would wait for each other, nothing is taken up.
    """
    if number is None:
        try:
            number = load_checkpoint(checkpoint)[1]["metrics"]["environment"]["threads"]
        except (ValueError, KeyError, TypeError):  # a damaged one is refused where it is used
            return
        if type(number) is not int or not 1 <= number <= (os.cpu_count() or 1):
            return
    torch.set_num_threads(number)
