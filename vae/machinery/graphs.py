"""Steps as CUDA graphs: a GPU learns a step's kernels once, and then replays them at one call."""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

CHECKED = 2  # replays of each variant that are compared with the step itself
TOLERANCE = 0.1  # of the step's own change: sums in another order turned it by 2 % at most


def can_replay(wanted: bool | None, device: torch.device, processes: int = 1) -> bool:
    """Whether steps are replayed. One process on a CUDA GPU does it, unless `wanted` is False.

    Raises `ValueError` if it is True anywhere else.
    """
    possible = device.type == "cuda" and processes == 1
    if wanted and not possible:
        given = f"{processes} processes on {device}"
        raise ValueError(f"cuda_graphs=True is not allowed with {given}: one, on a CUDA GPU")
    return possible and wanted is not False


class StepGraphs:
    """Records each variant of a training's step once, and replays it from then on.

    A small network's step has a thousand kernels, which a GPU computes sooner than Python launches
    them (PyTorch's notes on CUDA semantics, "CUDA graphs"). A replay reads and writes the memory
    that was recorded. So batches are copied there, and a step writes what it leaves for the next
    one in place: weights, the optimisers' states, the buffers of `step.Memory`.

    A number that Python computes is frozen in a recording. So the first two replays are compared
    with the step itself, whose result is kept: in the first, a frozen learning rate would still be
    right. Where a step cannot be recorded, or its replay does something else, a warning says so,
    and all steps are plain from then on.
    """

    def __init__(self, modules: list[nn.Module], optimizers: list[Optimizer], device: torch.device):
        """`modules`: those whose weights or buffers a step writes. Rates move to the `device`."""
        self.modules, self.optimizers, self.active = modules, optimizers, True
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            rate = torch.tensor(group["lr"], dtype=torch.float32, device=device)
            group |= {"capturable": True, "lr": rate}
        self.steps = Counter()  # of each variant
        self.recorded: dict[Hashable, tuple] = {}
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, variant: Hashable, step: Callable, batch: tuple) -> dict[str, Tensor]:
        """The terms that `step(*batch)` returns.

        `variant`: everything, beside the batch, that decides which kernels a step has. The first
        step of a variant is a plain one: it prepares the GPU's libraries and the optimisers.
        """
        self.steps[variant] += 1
        if not self.active or self.steps[variant] == 1:
            return self._plain(step, batch)
        if variant not in self.recorded:
            try:
                self.recorded[variant] = self._record(step, batch)
            except RuntimeError as error:
                self._give_up(f"one could not be recorded ({str(error).splitlines()[0]})")
                return self._plain(step, batch)
        if self.steps[variant] <= 1 + CHECKED:
            return self._checked(variant, step, batch)
        return self._replay(variant, batch)

    def _plain(self, step: Callable, batch: tuple) -> dict[str, Tensor]:
        outside = torch.cuda.current_stream()
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            terms = {name: value.detach().clone() for name, value in step(*batch).items()}
        outside.wait_stream(self.stream)
        return terms

    def _record(self, step: Callable, batch: tuple) -> tuple:
        """A graph, its inputs, and its terms: their names, and the tensor of their values."""
        inputs = [None if given is None else given.clone() for given in batch]
        graph = torch.cuda.CUDAGraph()
        # computes nothing yet; other threads may go on using the GPU
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            terms = step(*inputs)
            values = torch.stack([value.detach().float() for value in terms.values()])
        return graph, inputs, list(terms), values

    def _replay(self, variant: Hashable, batch: tuple) -> dict[str, Tensor]:
        graph, inputs, names, values = self.recorded[variant]
        for recorded, given in zip(inputs, batch, strict=True):
            if recorded is not None:
                recorded.copy_(given)
        graph.replay()
        return dict(zip(names, values.clone(), strict=True))

    @torch.no_grad()
    def _checked(self, variant: Hashable, step: Callable, batch: tuple) -> dict[str, Tensor]:
        """Take the step, and compare with it a replay that began from the same weights."""
        trained = [[p for p in m.parameters() if p.requires_grad] for m in self.modules]
        everything = [weight for weights in trained for weight in weights]
        everything += [buffer for module in self.modules for buffer in module.buffers()]
        states = [one for optimizer in self.optimizers for one in optimizer.state.values()]
        everything += [tensor for state in states for tensor in state.values()]
        before = [tensor.clone() for tensor in everything]
        replayed = self._replay(variant, batch)
        after_replay = [tensor.clone() for tensor in everything]
        torch._foreach_copy_(everything, before)
        with torch.enable_grad():
            terms = self._plain(step, batch)
        wrong = [name for name, value in terms.items()
                 if not torch.isclose(replayed[name], value.float(), TOLERANCE, 0.01)]  # fmt: skip
        apart, start = 0.0, 0  # largest difference of a module's weights, as a share of its change
        for weights in filter(None, trained):  # each alone: one's changes would hide another's
            part = slice(start, start := start + len(weights))
            moved, missed = (_distance(weights, other[part]) for other in (before, after_replay))
            apart = max(apart, (missed / moved.clamp_min(1e-12)).item())
        if wrong or not apart <= TOLERANCE:
            terms_too = f", and {', '.join(wrong)}" * bool(wrong)
            self._give_up(f"weights would move otherwise, by {apart:.0%} of a step{terms_too}")
        return terms

    def _give_up(self, why: str) -> None:
        text = f"steps are not replayed as CUDA graphs, which takes longer: {why}"
        warnings.warn(text, stacklevel=2)
        self.active = False
        self.recorded.clear()


def _distance(tensors: list[Tensor], others: list[Tensor]) -> Tensor:
    """The length of the difference of all tensors."""
    return torch.stack(torch._foreach_norm(torch._foreach_sub(tensors, others))).norm()
