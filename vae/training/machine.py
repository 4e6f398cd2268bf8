"""Where a training runs: device, precision and processes, by Hugging Face's accelerate."""

import contextlib
import os
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from accelerate.utils import AutocastKwargs, parse_flag_from_env
from torch import Tensor, nn

from vae_store.environment import device_memory

from .isolation import shared_state

CHANGES_THE_METHOD = (  # of what `accelerate` reads in the environment
    "GRADIENT_ACCUMULATION_STEPS", "DYNAMO_BACKEND", "USE_DEEPSPEED", "USE_FSDP",
    "USE_MEGATRON_LM", "USE_PARALLELISM_CONFIG",
)  # fmt: skip

# Autocast's copies of weights outlive a step within another autocast, `apart`'s or a caller's.
CACHE = False
PINNED = ("cuda",)  # kinds of devices that copy from pinned memory beside what else they do


class Machine(Accelerator):
    """A device in one of several processes, and its `mixed_precision`: "no", "bf16" or "fp16".

    Raises `ValueError` where the environment asks for what would change the method.
    """

    def __init__(self, mixed_precision: str):
        for name in (f"ACCELERATE_{end}" for end in CHANGES_THE_METHOD):
            if (value := os.environ.get(name, "no")).lower() not in ("no", "false", "1"):
                raise ValueError(f"{name}={value!r} in the environment is not allowed: unset it")
        precision, uncached = choose_precision(mixed_precision), AutocastKwargs(cache_enabled=CACHE)
        with shared_state({}, {}):
            super().__init__(mixed_precision=precision, kwargs_handlers=[uncached])

    def prepare(self, *args):
        with shared_state(vars(self.state), vars(self.gradient_state)):
            return super().prepare(*args)

    def descend(self, module: nn.Module, optimizer: torch.optim.Optimizer,
                clip_norm: float | None = None) -> dict[str, Tensor]:  # fmt: skip
        """Clip the module's gradient, if asked to, move its weights, and forget the gradient.

        Returns {"gradient_norm": its length before clipping}, if that is known.
        """
        norm = None if clip_norm is None else self.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        # in fp16 it may overflow, by which the step is skipped
        return {} if norm is None or self.mixed_precision == "fp16" else {"gradient_norm": norm}

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes, without a gradient."""
        return self.reduce(value.detach(), "mean")

    def deal(self, batch: Tensor) -> Tensor:
        """This process's part, dealt out one by one: all parts' first are the batch's first."""
        return send(batch[self.process_index :: self.num_processes], self.device)

    def track(self, name: str, directory: Path, settings: dict) -> None:
        """Have what `log` is given sent to a tracker of this name too, or to none if it is "no".

        TensorBoard's files go to `directory`/logs.
        """
        if name == "no":
            return
        self.log_with = filter_trackers(name, directory)
        self.project_configuration.logging_dir = str(directory)
        kept = {k: v if isinstance(v, bool | int | float | str) else str(v)
                for k, v in settings.items()}  # fmt: skip
        self.init_trackers("logs", kept)

    def log_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Send a picture, uint8 (H, W, 3), to a tracker that takes pictures."""
        for tracker in self.trackers:
            if hasattr(tracker, "log_images"):
                how = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({name: pixels[None]}, step, **how)

    def hold(self, images: Tensor) -> Tensor:
        """The images on the device, if they take at most half of its memory, or where they are."""
        most = device_memory(self.device) / 2
        return images.to(self.device) if images.nbytes <= most else images

    def fetch(self, images: Tensor, index: Tensor) -> Tensor:
        """Some of the images that are held, (B, C, H, W), on the device."""
        return send(images[index.to(images.device)], self.device)

    def unwrap(self, module: nn.Module) -> nn.Module:
        """The module without what `accelerate` put around it."""
        return self.unwrap_model(module, keep_fp32_wrapper=True)

    @property
    def replays(self) -> bool:
        """Whether CUDA graphs can be used: in fp16, a step waits to see what overflowed."""
        return self.device.type == "cuda" and self.num_processes == 1 and self.scaler is None

    def bf16(self) -> contextlib.AbstractContextManager:
        """Autocast to bf16 where that is used; fp16 would lose the small gradients of LPIPS."""
        here = self.mixed_precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, here, cache_enabled=CACHE)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU takes pinned memory when it gets there: nobody waits for it."""
    pinned = tensor.is_cpu and device.type in PINNED
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)


def check_tracker(name: str) -> None:
    """Raise `ValueError` for a tracker whose package is not installed."""
    if name != "no" and not filter_trackers(name, "."):
        raise ValueError(f"log_with={name!r} is not allowed: its package is not installed")


def choose_precision(requested: str) -> str:
    """ "auto" becomes bf16, fp16 on a GPU without it, or "no" on a CPU: twice as fast there."""
    gpu = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    if requested == "fp16" and not gpu:  # accelerate would ignore it
        raise ValueError("mixed_precision='fp16' is not allowed without a CUDA GPU: 'no' or 'bf16'")
    if requested == "auto" and gpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "no" if requested == "auto" else requested


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream is decided by `key`, independent of any other key's."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))
