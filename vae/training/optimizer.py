"""The optimiser: Muon for matrices and convolutions, AdamW for the rest; and its schedule."""

from collections import defaultdict
from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan 2024: steep at zero, so that five steps do
NEWTON_SCHULZ_STEPS = 5
SMALLEST = 8  # a thinner matrix has hardly any directions to balance
ADAMW_SHARE = 0.5  # of Muon's learning rate; tuned with it on latent size 2


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before they are applied.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with the
    scale of Liu et al., "Muon is scalable for LLM training", 2025, eq. 4, by which an update is as
    large as AdamW's. A convolution's kernel (O, I, H, W) is a matrix (O, I*H*W). Biases, norms,
    embeddings and thin matrices get AdamW (Loshchilov & Hutter 2019) at half the learning rate.

    `torch.optim.Muon` takes plain matrices alone, and multiplies in bfloat16, slow on most CPUs.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float):
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        groups = {True: [], False: []}
        for parameter in model.parameters():
            matrix = parameter.ndim in (2, 4) and min(parameter.flatten(1).shape) >= SMALLEST
            groups[matrix and id(parameter) not in embeddings].append(parameter)
        self.adamw = torch.optim.AdamW(
            groups[False], ADAMW_SHARE * lr, (0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        matrices = {"params": groups[True], "lr": lr, "weight_decay": weight_decay}
        super().__init__([matrices, *self.adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every parameter that has a gradient."""
        matrices, rest = self.param_groups
        self._step_matrices(matrices)
        self.adamw.param_groups, self.adamw.state = [rest], self.state
        self.adamw.step()

    def _step_matrices(self, group: dict) -> None:
        same_shape = defaultdict(list)  # these are made orthogonal together
        for parameter in group["params"]:
            if parameter.grad is not None:
                same_shape[parameter.shape].append(parameter)
        for shape, parameters in same_shape.items():
            updates = []
            for parameter in parameters:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                updates.append(gradient.lerp(average, MOMENTUM).flatten(1))  # Nesterov's
            updates = orthogonalize(torch.stack(updates))
            step = -0.2 * max(updates.shape[1:]) ** 0.5 * group["lr"]
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view(shape), alpha=step)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Move all singular values of `matrices`: (N, R, C) to about 1 (0.7 to 1.2), in float32.

    The polynomial X <- aX + b(XX')X + c(XX')^2 X, five times (Jordan 2024): matrix products alone.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def one_cycle(warmup: float, total_steps: int) -> Callable[[int], float]:
    """The share of the peak learning rate at a step: a linear rise, then half a cosine to zero."""
    rise = max(1, round(warmup * total_steps))

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 + 0.5 * cos(pi * (step - rise) / max(1, total_steps - rise))

    return share


def plateau(warmup: float, fall: float, total_steps: int) -> Callable[[int], float]:
    """As `one_cycle`, but constant until the last part, `fall` of all steps, and linear then."""

    def share(step: int) -> float:
        return min(
            1, (step + 1) / (warmup * total_steps), (total_steps - step) / (fall * total_steps)
        )

    return share


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights towards the model's, faster while `step` is small."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
