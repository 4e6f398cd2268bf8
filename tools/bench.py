"""Where the time of a training step goes, and the work it does.

    python tools/bench.py [--batch-size 32] [--rounds 5] [--mixed-precision bf16]

The variants take turns within a round, so that a machine whose speed drifts slows all of them;
what is printed is the median over the rounds. FLOPs are counted by torch, for one image.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vae import TrainConfig, Trainer, VAEConfig
from vae.machinery.config import PRECISIONS

BASE, WHOLE = "MSE + KL", "all four terms"
VARIANTS = {
    BASE: {"w_perceptual": 0.0, "w_adversarial": 0.0},
    "+ perceptual": {"w_adversarial": 0.0},
    "+ adversarial": {"w_perceptual": 0.0},
    WHOLE: {},
    **{f"{size}x{size} RGB": {"model": VAEConfig(image_size=size, image_channels=3)}
       for size in (32, 64)},
}  # fmt: skip
PARTS = {  # of a step, from the variants' seconds or FLOPs
    "encoder + decoder": lambda of: of[BASE] - of["optimiser"],
    "perceptual": lambda of: of[WHOLE] - of["+ adversarial"],
    "discriminator": lambda of: of[WHOLE] - of["+ perceptual"],
    "optimiser": lambda of: of["optimiser"],
    WHOLE: lambda of: of[WHOLE],
}
STEPS = 20  # timed together, so that one wait for the device is shared: five rounds of lazy terms


class FlopCount(TorchDispatchMode):
    """torch's own counts of FLOPs, summed. Its FlopCounterMode fails under autograd.grad."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


def take_steps(trainer: Trainer) -> None:
    for _ in range(STEPS):
        trainer.take_step()
    trainer.log.recent.clear()


def optimiser_steps(trainer: Trainer) -> None:
    """Steps of the model's optimiser alone, with a small gradient everywhere."""
    for parameter in trainer.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    for _ in range(STEPS):
        trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def measure(rounds: int, folder: str, **config) -> tuple[Trainer, dict, dict]:
    """Median seconds and GFLOP of STEPS steps of each variant, and of the optimiser."""
    config |= {"epochs": 1, "adversarial_start": 0.0, "cuda_graphs": False}
    trainers = {k: Trainer(TrainConfig(**config, **v), folder) for k, v in VARIANTS.items()}
    full = trainers[WHOLE]
    work = {name: partial(take_steps, trainer) for name, trainer in trainers.items()}
    work["optimiser"] = partial(optimiser_steps, full)
    flops, taken = {}, {name: [] for name in work}
    for name, task in work.items():  # a warm-up too
        with FlopCount() as counter:
            task()
        flops[name] = counter.total / 1e9
    for _ in range(rounds):
        for name, task in work.items():
            start = time.perf_counter()
            task()
            if full.device.type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return full, {name: statistics.median(found) for name, found in taken.items()}, flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mixed-precision", choices=PRECISIONS, default=PRECISIONS[0])
    with tempfile.TemporaryDirectory() as folder:
        full, median, flops = measure(folder=folder, **vars(parser.parse_args()))
    here, size = full.metrics["environment"], full.config.batch_size
    print(f"{here['hardware']}, torch {here['torch']}, batch {size}, "
          f"mixed precision: {here['mixed_precision']}\n")  # fmt: skip
    images = STEPS * size
    print(f"{'step':<18}{'images/s':>10}{'relative':>10}{'GFLOP/image':>13}{'GFLOP/s':>10}")
    for name in VARIANTS:
        print(f"{name:<18}{images / median[name]:>10.0f}{median[BASE] / median[name]:>10.2f}"
              f"{flops[name] / images:>13.3f}{flops[name] / median[name]:>10.0f}")  # fmt: skip
    print(f"\n{'part of the step':<18}{'ms':>10}{'share':>10}{'GFLOP/image':>13}")
    for name, of in PARTS.items():
        print(f"{name:<18}{of(median) / STEPS * 1e3:>10.1f}{of(median) / median[WHOLE]:>10.0%}"
              f"{of(flops) / images:>13.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
