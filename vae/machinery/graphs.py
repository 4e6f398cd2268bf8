"""Steps as CUDA graphs: a GPU learns a step's kernels once, and then replays them at one call."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class StepGraphs:
    """Records each variant of a training's step once, and replays it from then on.

    A small network's step has a thousand kernels, which a GPU computes sooner than Python launches
    them (PyTorch's notes on CUDA semantics, "CUDA graphs"). A replay reads and writes the memory
    that was recorded. So batches are copied there, and a step writes what it leaves for the next
    one in place: weights, the optimisers' states, the buffers of `step.Memory`.
    """

    def __init__(self):
        self.prepared: set[Hashable] = set()
        self.recorded: dict[Hashable, tuple] = {}
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, variant: Hashable, step: Callable, batch: tuple) -> dict[str, Tensor]:
        """The terms that `step(*batch)` returns.

        `variant`: everything, beside the batch, that decides which kernels a step has. The first
        step of a variant is a plain one: it prepares the GPU's libraries and the optimisers.
        """
        if variant not in self.prepared:
            self.prepared.add(variant)
            outside = torch.cuda.current_stream()
            self.stream.wait_stream(outside)
            with torch.cuda.stream(self.stream):
                terms = {name: value.detach().clone() for name, value in step(*batch).items()}
            outside.wait_stream(self.stream)
            return terms
        if variant not in self.recorded:
            self.recorded[variant] = self._record(step, batch)
        graph, inputs, names, values = self.recorded[variant]
        for recorded, given in zip(inputs, batch, strict=True):
            if recorded is not None:
                recorded.copy_(given)
        graph.replay()
        return dict(zip(names, values.clone(), strict=True))

    def _record(self, step: Callable, batch: tuple) -> tuple:
        """A graph, its inputs, and its terms: their names, and the tensor of their values."""
        inputs = [None if given is None else given.clone() for given in batch]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.stream):  # computes nothing yet
            terms = step(*inputs)
            values = torch.stack([value.detach().float() for value in terms.values()])
        return graph, inputs, list(terms), values
