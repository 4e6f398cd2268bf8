"""A module in a folder: its weights as safetensors, its config as JSON, each checked when read."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from .files import FileError, load_tensors, read_json, save_tensors, write_atomically


def save_module(module: nn.Module, config_path: Path, weights_path: Path) -> None:
    """Write `module.config`, a dataclass, and the module's weights, each file in one step."""
    config_path.parent.mkdir(parents=True, exist_ok=True)
    config = json.dumps(asdict(module.config), indent=2) + "\n"
    write_atomically(config_path, lambda path: path.write_text(config))
    save_tensors(weights_path, module.state_dict(), {})


def load_module(
    kind: type[nn.Module], config_kind: type, config_path: Path, weights_path: Path
) -> nn.Module:
    """The module that `save_module` wrote, on the CPU, in float32, in evaluation mode.

    Raises `FileError` (a `ValueError`) that names the file when one is missing, truncated, altered
    since it was written, or belongs to another module. No code is unpickled.
    """
    name = kind.__name__
    if not config_path.is_file():
        raise FileError(f"{config_path} does not exist; the config of a {name} is expected")
    raw = read_json(config_path, f"a {name}'s config")
    try:
        unknown = set(raw) - {f.name for f in fields(config_kind)}
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}")
        config = config_kind(**raw)
    except (TypeError, ValueError) as error:
        raise FileError(f"{config_path} is not a {name}'s config: {error}") from error
    weights = load_tensors(weights_path)[0]
    with torch.device("meta"):  # takes no memory, whatever the config asks for
        module = kind(config)
    try:
        if not all(tensor.is_floating_point() for tensor in weights.values()):
            raise RuntimeError("weights are not floating-point numbers")
        module.load_state_dict({k: t.float() for k, t in weights.items()}, assign=True)
    except RuntimeError as error:
        raise FileError(f"{weights_path} does not fit {config_path}: {error}") from error
    return module.to(memory_format=torch.channels_last).eval()
