"""Where the time of a training step goes, the work it does, and how soon the reference is passed.

    python tools/bench.py [--batch-size 32] [--rounds 5]

The variants take turns within a round, so that a machine whose speed drifts slows all of them;
what is printed is the median over the rounds. FLOPs are counted by torch, for one image. The time
to the reference's quality is read from the histories of `assets/latent_*`, each of which names
its machine; `make results` measures it anew.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import ASSETS, REFERENCE, time_to_reference
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vae import VAE, TrainConfig, evaluate, scale_images
from vae.notebook import latent_sliders
from vae.run import describe_environment, is_finished, peak_memory_mb, read_metrics
from vae.training import RUNNING_LPIPS_IMAGES, Trainer

VARIANTS = {
    "MSE + KL": {"w_perceptual": 0.0, "w_adversarial": 0.0},
    "+ perceptual": {"w_adversarial": 0.0},
    "+ adversarial": {"w_perceptual": 0.0},
    "all four terms": {},
}
STEPS = 20  # timed together, so that one wait for the device is shared: five rounds of lazy terms
EPOCH, TEST_IMAGES = 60_000, 10_000
EVALUATED = 1_000


class FlopCount(TorchDispatchMode):
    """torch's own counts of FLOPs, summed. Its FlopCounterMode fails under autograd.grad."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


def gflop(work: Callable) -> float:
    """10^9 FLOPs of a call."""
    with FlopCount() as counter:
        work()
    return counter.total / 1e9


def seconds(work: Callable, device: torch.device) -> float:
    """Seconds that a call takes, waiting for the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def steps(trainer: Trainer) -> None:
    """STEPS training steps."""
    for _ in range(STEPS):
        trainer.optimize()
    trainer.recent.clear()


def optimiser_steps(trainer: Trainer) -> None:
    """STEPS steps of the model's optimiser alone, with a small gradient everywhere."""
    for parameter in trainer.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    for _ in range(STEPS):
        trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def running_evaluation(trainer: Trainer, images: int) -> None:
    """The evaluation that training stops for, on the first `images` test digits."""
    evaluate(trainer.ema, trainer.test_set.images[:images], mean=False, lpips_images=0)


def running_lpips(trainer: Trainer) -> None:
    """The LPIPS of such an evaluation."""
    x = scale_images(trainer.test_set.images[:RUNNING_LPIPS_IMAGES])
    for part in x.split(100):
        with torch.no_grad():
            trainer.lpips(part, part.flip(0))


def redraws(slider) -> None:
    """STEPS moves of a notebook's slider, each of which decodes and draws a digit."""
    for _ in range(STEPS):
        slider.value = 1 - slider.value


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
    full = trainers["all four terms"]
    device = full.device
    work = {name: lambda trainer=trainer: steps(trainer) for name, trainer in trainers.items()}
    work["optimiser"] = lambda: optimiser_steps(full)
    work["evaluation"] = lambda: running_evaluation(full, EVALUATED)
    work["LPIPS"] = lambda: running_lpips(full)
    slider = latent_sliders(VAE.from_pretrained(ASSETS / "global_16")).children[1].children[0]
    work["redraw"] = lambda: redraws(slider)
    flops = {name: gflop(task) for name, task in work.items()}  # a warm-up too
    taken = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, task in work.items():
            taken[name].append(seconds(task, device))
    median = {name: statistics.median(times) for name, times in taken.items()}

    environment = describe_environment(device, full.accelerator.mixed_precision, 1)
    print(f"{environment['hardware']}, torch {torch.__version__}, batch {options.batch_size}")
    print(f"peak resident memory {peak_memory_mb(device):,.0f} MiB, four models loaded\n")
    images = STEPS * options.batch_size
    print(f"{'step':<18}{'images/s':>10}{'relative':>10}{'GFLOP/image':>13}")
    for name in VARIANTS:
        relative = median["MSE + KL"] / median[name]
        print(f"{name:<18}{images / median[name]:>10.0f}{relative:>10.2f}"
              f"{flops[name] / images:>13.3f}")  # fmt: skip

    def part(name: str, times: float, count: float) -> None:
        share = times / median["all four terms"]
        print(f"{name:<18}{times / STEPS * 1e3:>10.1f}{share:>10.0%}{count / images:>13.3f}")

    print(f"\n{'part of the step':<18}{'ms':>10}{'share':>10}{'GFLOP/image':>13}")
    base, whole = "MSE + KL", "all four terms"
    rows = {
        "encoder + decoder": lambda of: of[base] - of["optimiser"],
        "perceptual": lambda of: of[whole] - of["+ adversarial"],
        "discriminator": lambda of: of[whole] - of["+ perceptual"],
        "optimiser": lambda of: of["optimiser"],
    }
    for name, of in rows.items():
        part(name, of(median), of(flops))
    part("all four terms", median[whole], flops[whole])

    one = median["evaluation"] * TEST_IMAGES / EVALUATED + median["LPIPS"]
    epoch = median[whole] * EPOCH / images
    counted = flops["evaluation"] / EVALUATED + flops["LPIPS"] / TEST_IMAGES
    print(f"\na running evaluation of 10,000 digits takes {one / epoch:.1%} of an epoch of 60,000"
          f" ({counted:.3f} GFLOP/image)")  # fmt: skip

    redraw = median["redraw"] / STEPS * 1e3
    print(f"moving a notebook's slider redraws the digit in {redraw:.0f} ms, on the CPU")

    print(f"\n{'latent':<8}{'seconds':>10}{'times faster':>18}{'epoch':>10}   "
          "to the reference's MSE, SSIM and PSNR (24,000 s); measured on")  # fmt: skip
    for size in REFERENCE:
        if is_finished(ASSETS / f"latent_{size}"):
            passed = time_to_reference(size)
            hardware = read_metrics(ASSETS / f"latent_{size}")["environment"]["hardware"]
            if passed is None:
                print(f"{size:<8}{'never':>10}")
            else:
                after, faster, epoch = passed
                print(f"{size:<8}{after:>10.0f}{faster:>18.0f}{epoch:>10.2f}   {hardware}")


if __name__ == "__main__":
    main()
