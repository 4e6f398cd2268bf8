"""Steps as CUDA graphs: a GPU is told once what a step is, and not kernel by kernel every time."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class StepGraphs:
    """Records each kind of step of a training once, and replays it from then on.

    A small network's step has a thousand kernels, which a GPU computes sooner than a CPU names them
    (PyTorch's notes on CUDA semantics, "CUDA graphs"). What is replayed reads and writes the places
    in memory that were recorded: so batches are copied there, and what a step leaves in `memory`
    for the next goes back to where that step looks for it.
    """

    def __init__(self, memory: dict[str, Tensor]):
        self.memory, self.steady, self.recorded = memory, set(), {}
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, kind: Hashable, step: Callable, batch: tuple) -> dict[str, Tensor]:
        """The terms that `step(*batch)` returns.

        `kind`: what decides what it computes, beside its batch. The first of a kind is no replay,
        since it prepares what a GPU's libraries and the optimisers need; nor is one that comes
        while `memory` still grows.
        """
        if kind not in self.steady:
            return self._as_it_is(kind, step, batch)
        if kind not in self.recorded:
            self.recorded[kind] = self._record(step, batch)
        graph, places, names, values = self.recorded[kind]
        for place, given in zip(places, batch, strict=True):
            if place is not None:
                place.copy_(given)
        graph.replay()
        return dict(zip(names, values.clone(), strict=True))

    def _as_it_is(self, kind: Hashable, step: Callable, batch: tuple) -> dict[str, Tensor]:
        outside = torch.cuda.current_stream()
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            before = self.memory.copy()
            terms = {name: value.detach().clone() for name, value in step(*batch).items()}
            if self._settle(before):
                self.steady.add(kind)
        outside.wait_stream(self.stream)
        return terms

    def _record(self, step: Callable, batch: tuple) -> tuple:
        """A graph, where its batch is, and its terms: their names, and where their values are."""
        places = [None if given is None else given.clone() for given in batch]
        graph, before = torch.cuda.CUDAGraph(), self.memory.copy()
        with torch.cuda.graph(graph, self.pool, self.stream):  # which computes nothing yet
            terms = step(*places)
            values = torch.stack([value.detach().float() for value in terms.values()])
            self._settle(before)
        return graph, places, list(terms), values

    def _settle(self, before: dict[str, Tensor]) -> bool:
        """Put what is in memory now to where it was; False if anything is larger now."""
        fit = {name for name, place in before.items() if place.shape == self.memory[name].shape}
        for name in fit:
            self.memory[name] = before[name].copy_(self.memory[name])
        return fit == self.memory.keys()
