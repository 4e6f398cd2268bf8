"""Where a training runs: device, precision and processes, by Hugging Face's accelerate."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn


class Machine:
    """A device in one of several processes, and its precision: "no", "bf16" or "fp16"."""

    def __init__(self, mixed_precision: str):
        AcceleratorState._reset_state()  # or a second training could not have another precision
        self.accelerator = Accelerator(mixed_precision=choose_precision(mixed_precision))
        self.device = self.accelerator.device
        self.precision = self.accelerator.mixed_precision
        self.processes, self.index = self.accelerator.num_processes, self.accelerator.process_index
        self.is_main = self.accelerator.is_main_process
        self.scaler = self.accelerator.scaler  # of fp16's gradients, else None

    def descend(
        self, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float
    ) -> dict[str, Tensor]:
        """`loss.backward()`, clip the gradient, a step of the optimiser, forget the gradient.

        Returns {"gradient_norm": the gradient's length before clipping}; nothing in fp16, where it
        may overflow, which skips the step.
        """
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return {} if self.precision == "fp16" else {"gradient_norm": norm}

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes, without a gradient."""
        return self.accelerator.reduce(value.detach(), "mean")

    def deal(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, on the device.

        The batch is dealt out one by one, so that what LPIPS sees, the first images of each part,
        is the first of the batch.
        """
        return batch[self.index :: self.processes].to(self.device)

    def unwrap(self, module: nn.Module) -> nn.Module:
        """The module without what `accelerate` put around it."""
        return self.accelerator.unwrap_model(module, keep_fp32_wrapper=True)

    def bf16(self) -> contextlib.AbstractContextManager:
        """Autocast to bf16 where that is used; fp16 would lose the small gradients of LPIPS."""
        bf16 = self.precision == "bf16"
        return self.accelerator.autocast() if bf16 else contextlib.nullcontext()


def choose_precision(requested: str) -> str:
    """ "auto" becomes bf16 where the hardware computes in it, fp16 on an older GPU, or "no"."""
    if requested == "fp16" and not torch.cuda.is_available():  # accelerate would ignore it
        raise ValueError("mixed_precision='fp16' is not allowed without a CUDA GPU: 'no' or 'bf16'")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    probes = (
        getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile")
    )
    return "bf16" if any(probe() for probe in probes) else "no"


@contextlib.contextmanager
def interrupts(processes: int) -> Iterator[list[int]]:
    """A list that an interrupt (Ctrl-C) makes non-empty; a second interrupt stops at once.

    With several processes, which could not agree on a step, and outside of the main thread, which
    alone gets signals, an interrupt stops at once, as always.
    """
    asked: list[int] = []
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream is decided by `key`, independent of any other key's."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))
