"""A training's state as one file, from which it goes on as if it had never stopped.

The file is safetensors: tensors, and a JSON text for the rest. Nothing in it is ever executed.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from .files import FileError, load_tensors, save_tensors

CHECKPOINT_NAME, PRIOR_CHECKPOINT_NAME = "checkpoint.safetensors", "prior_checkpoint.safetensors"


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict) -> None:
    """Write both in one step. Raises `FloatingPointError` rather than save what is not finite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FloatingPointError(f"{name} is not finite: {path} is left as it was")
    save_tensors(path, tensors, {"state": json.dumps(state)})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save_checkpoint` wrote. Raises `FileError` (a `ValueError`) naming the file."""
    tensors, metadata = load_tensors(path)
    try:
        state = json.loads(metadata["state"])
        step, seconds, config = state["step"], state["training_seconds"], state["metrics"]["config"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is not a checkpoint: {error!r}") from error
    valid = isinstance(step, int) and step >= 0 and isinstance(seconds, (int, float))
    if not valid or not isinstance(config, dict):
        raise FileError(f"{path} is not a checkpoint: its step, seconds or config is not one")
    return tensors, state


def check_begun(path: Path, checkpoint_name: str) -> None:
    """Raise `FileError` for a file that is not there since a training was cut off before it."""
    if not path.is_file() and (path.parent / checkpoint_name).is_file():
        held = f"{path.parent}: only a checkpoint is there, and no {path.name} yet"
        raise FileError(f"{held}, since the training was cut off: --resume goes on")


def under(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `part` and a dot, without that."""
    start = f"{part}."
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


def gather(modules: dict, optimizers: dict, recent: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All weights, the optimisers' states, and the terms of the last steps, each by its name."""
    parts = {name: module.state_dict() for name, module in modules.items()}
    parts |= {name: optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    terms = recent[0] if recent else {}
    parts["recent"] = {name: torch.stack([row[name] for row in recent]) for name in terms}
    return {f"{part}.{k}": t for part, tensors in parts.items() for k, t in tensors.items()}


def scatter(tensors: dict[str, Tensor], modules: dict, optimizers: dict,
            terms: list[str]) -> list[dict[str, Tensor]]:  # fmt: skip
    """Put back what `gather` took; returns the last steps' `terms`, in this order."""
    for name, module in modules.items():
        module.load_state_dict(under(name, tensors))
    for name, optimizer in optimizers.items():
        restore_optimizer(optimizer, under(name, tensors))
    columns = [tensors[f"recent.{name}"] for name in terms]
    return [dict(zip(terms, row, strict=True)) for row in zip(*columns, strict=True)]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state: "number of the parameter.name of the value"."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        # with the parameter's strides: fused AdamW on a CPU reads both in the order of memory
        like = parameter.new_empty(()) if name == "step" else torch.empty_like(parameter)
        if value.shape != like.shape:
            raise ValueError(f"{name} of parameter {number} is {tuple(value.shape)}")
        optimizer.state[parameter][name] = like.copy_(value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
