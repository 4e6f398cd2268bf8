"""Where the time of a training step goes, and the work it does.

    python tools/bench.py

The variants take turns within a round, so that a machine whose speed drifts slows all of them;
what is printed is the median over the rounds. FLOPs are counted by torch, for one image.
"""

import statistics
import tempfile
import time
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from vae import TrainConfig, Trainer

BASE, WHOLE = "MSE + KL", "all four terms"
VARIANTS = {
    BASE: {"w_perceptual": 0.0, "w_adversarial": 0.0},
    "+ perceptual": {"w_adversarial": 0.0},
    "+ adversarial": {"w_perceptual": 0.0},
    WHOLE: {},
}
PARTS = {  # of a step, from the variants' seconds or FLOPs
    "encoder + decoder": lambda of: of[BASE] - of["optimiser"],
    "perceptual": lambda of: of[WHOLE] - of["+ adversarial"],
    "discriminator": lambda of: of[WHOLE] - of["+ perceptual"],
    "optimiser": lambda of: of["optimiser"],
}
STEPS = 20  # timed together, so that one wait for the device is shared: five rounds of lazy terms
ROUNDS = 5


def take_steps(trainer: Trainer) -> None:
    for _ in range(STEPS):
        trainer.take_step()
    trainer.recent.clear()


def optimiser_steps(trainer: Trainer) -> None:
    """Steps of the model's optimiser alone, with a small gradient everywhere."""
    for parameter in trainer.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    for _ in range(STEPS):
        trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def measure(folder: str) -> tuple[Trainer, dict, dict]:
    """Median seconds and GFLOP of STEPS steps of each variant, and of the optimiser."""
    config = {"epochs": 1, "adversarial_start": 0.0, "cuda_graphs": False}
    trainers = {k: Trainer(TrainConfig(**config, **v), folder) for k, v in VARIANTS.items()}
    full = trainers[WHOLE]
    work = {name: partial(take_steps, trainer) for name, trainer in trainers.items()}
    work["optimiser"] = partial(optimiser_steps, full)
    flops, taken = {}, {name: [] for name in work}
    for name, task in work.items():  # a warm-up too
        with FlopCounterMode(display=False) as counter:
            task()
        flops[name] = counter.get_total_flops() / 1e9
    for _ in range(ROUNDS):
        for name, task in work.items():
            start = time.perf_counter()
            task()
            if full.device.type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return full, {name: statistics.median(found) for name, found in taken.items()}, flops


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        full, median, flops = measure(folder)
    here, size = full.metrics["environment"], full.config.batch_size
    print(f"{here['hardware']}, torch {here['torch']}, batch {size}\n")
    images = STEPS * size
    print(f"{'step':<18}{'images/s':>10}{'relative':>10}{'GFLOP/image':>13}")
    for name in VARIANTS:
        print(f"{name:<18}{images / median[name]:>10.0f}{median[BASE] / median[name]:>10.2f}"
              f"{flops[name] / images:>13.3f}")  # fmt: skip
    print(f"\n{'part of the step':<18}{'share':>10}{'GFLOP/image':>13}")
    for name, of in PARTS.items():
        print(f"{name:<18}{of(median) / median[WHOLE]:>10.0%}{of(flops) / images:>13.3f}")


if __name__ == "__main__":
    main()
