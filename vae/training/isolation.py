"""What keeps a training, its caller and other threads out of each other's way."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from accelerate.state import AcceleratorState, GradientState
from torch.overrides import TorchFunctionMode

ONE_AT_A_TIME = threading.RLock()  # of threads that change what the whole process shares


@contextlib.contextmanager
def shared_state(*states: dict) -> Iterator[None]:
    """Let what is made meanwhile share these states, one thread at a time.

    `accelerate` has one for the whole process, in which another training, or its caller's own
    Accelerator, may have another precision.
    """
    kinds = AcceleratorState, GradientState
    with ONE_AT_A_TIME:
        before = [kind._shared_state for kind in kinds]
        try:
            for kind, state in zip(kinds, states, strict=True):
                kind._shared_state = state
            yield
        finally:
            for kind, state in zip(kinds, before, strict=True):
                kind._shared_state = state


class Seeded(TorchFunctionMode):
    """New modules are float32 on the CPU and depend on `seed` alone.

    The process's random state, default type and device are neither used nor touched: other threads
    may draw, train or change them meanwhile.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if name in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "randn"):
            kwargs = kwargs | {"generator": self.generator}
        if name in ("empty", "zeros", "ones", "randn"):
            kwargs = kwargs | {"dtype": torch.float32, "device": "cpu"}
        return function(*args, **kwargs)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Gradient mode, autocast and default device do not reach in; the threads' number stays."""
    default, kinds = torch.empty(0).device.type, {"cpu"}
    if torch.accelerator.is_available():
        kinds.add(torch.accelerator.current_accelerator().type)
    with contextlib.ExitStack() as modes:
        modes.callback(torch.set_num_threads, torch.get_num_threads())
        modes.enter_context(torch.inference_mode(False))  # with gradients
        for kind in kinds:
            modes.enter_context(torch.autocast(kind, enabled=False))
        if default != "cpu":  # which costs a little in every call
            modes.enter_context(torch.device("cpu"))
        yield
