"""CUDA graphs on a CPU: kernels are recorded, and replayed on the tensors that they had then.

As on a GPU, recording changes nothing and may not look at a value, and what is replayed has each
number that Python gave it then. So what would be wrong there is wrong here.
"""

import contextlib
from unittest import mock

import torch
from elsewhere import DEPENDS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vae.machinery.graphs import StepGraphs, can_replay

MODULES = "loop", "latents"  # which replay steps


class Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kernels, self.before = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if DEPENDS & set(func.tags):
            raise RuntimeError(f"{func}: a value is looked at while a graph is recorded")
        arguments = func._schema.arguments
        given = dict(zip((one.name for one in arguments), args, strict=False)) | kwargs
        written = [given.get(one.name) for one in arguments if one.is_write]
        self.before += [(x, x.clone()) for x in tree_leaves(written) if isinstance(x, Tensor)]
        results = func(*args, **kwargs)
        self.kernels.append((func, args, kwargs, results))
        return results


class Graph:
    """A `torch.cuda.CUDAGraph`."""

    def __init__(self):
        self.recording = Recording()

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, results in self.recording.kernels:
            places, found = tree_leaves(results), tree_leaves(func(*args, **kwargs))
            for place, value in zip(places, found, strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


@contextlib.contextmanager
def record(graph: Graph, pool: object, stream: object, capture_error_mode: str):
    """`torch.cuda.graph`."""
    try:
        with graph.recording:
            yield
    finally:
        with torch.no_grad():
            for place, value in reversed(graph.recording.before):
                place.copy_(value)


def fuse(optimizers):
    """Let PyTorch's Adam take the form that is a kernel on a CPU, too."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["fused"] = True


def prepare(modules, optimizers, device):
    """As on a GPU."""
    fuse(optimizers)
    return StepGraphs(modules, optimizers, device)


def on_a_gpu(wanted, *machine) -> bool:
    """Whether a GPU would replay steps."""
    return can_replay(wanted, torch.device("cuda"))


@contextlib.contextmanager
def recorded():
    """Within it, a machine can replay steps: a GPU, where there is one, and else the CPU."""
    if torch.cuda.is_available():
        yield
        return
    names = ("Stream", "stream", "current_stream", "graph_pool_handle")
    fakes = dict.fromkeys(names, mock.MagicMock()) | {"CUDAGraph": Graph, "graph": record}
    prepared = mock.patch("vae.machinery.loop.StepGraphs", prepare)
    checks = mock.patch.object(torch.Tensor, "is_cpu", False)  # a GPU's values are not looked at
    able = [mock.patch(f"vae.machinery.{name}.can_replay", on_a_gpu) for name in MODULES]
    with mock.patch.multiple(torch.cuda, **fakes), prepared, checks, able[0], able[1]:
        yield
