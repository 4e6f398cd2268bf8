"""Training speed with and without each of the costly terms, and the work that each adds.

    python tools/bench.py [--batch-size 32] [--rounds 5]

The variants take turns within a round, so that a machine whose speed drifts slows all of them;
what is printed is the median over the rounds. FLOPs are counted by torch, for one image.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vae import TrainConfig
from vae.run import describe_environment, peak_memory_mb
from vae.training import Trainer

VARIANTS = {
    "MSE + KL": {"w_perceptual": 0.0, "w_adversarial": 0.0},
    "+ perceptual": {"w_adversarial": 0.0},
    "+ adversarial": {"w_perceptual": 0.0},
    "all four terms": {},
}
STEPS = 20  # timed together, so that one wait for the device is shared


class FlopCount(TorchDispatchMode):
    """torch's own counts of FLOPs, summed. Its FlopCounterMode fails under autograd.grad."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


def time_steps(trainer: Trainer) -> float:
    """Seconds for STEPS training steps."""
    start = time.perf_counter()
    for _ in range(STEPS):
        trainer.optimize()
    float(trainer.recent[-1]["gradient_norm"])  # waits for a GPU
    trainer.recent.clear()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: Trainer(
                TrainConfig(
                    batch_size=options.batch_size, epochs=1, adversarial_start=0.0, **terms
                ),
                Path(folder) / str(i),
            )
            for i, (name, terms) in enumerate(VARIANTS.items())
        }
        flops = {}
        for name, trainer in trainers.items():
            with FlopCount() as counter:
                trainer.optimize()
            flops[name] = counter.total / options.batch_size / 1e9
            time_steps(trainer)  # warm-up
        seconds = {name: [] for name in trainers}
        for _ in range(options.rounds):
            for name, trainer in trainers.items():
                seconds[name].append(time_steps(trainer))
    environment = describe_environment(trainer.device, trainer.accelerator.mixed_precision, 1)
    print(f"{environment['hardware']}, torch {torch.__version__}, batch {options.batch_size}")
    print(f"peak resident memory {peak_memory_mb(trainer.device):,.0f} MiB, four models loaded")
    print(f"{'step':<16}{'images/s':>10}{'relative':>10}{'GFLOP/image':>13}")
    base = statistics.median(seconds["MSE + KL"])
    for name, times in seconds.items():
        median = statistics.median(times)
        speed = STEPS * options.batch_size / median
        print(f"{name:<16}{speed:>10.0f}{base / median:>10.2f}{flops[name]:>13.3f}")


if __name__ == "__main__":
    main()
