"""What was tried for speed, each against the recipe: the rows of `docs/speed.md`.

    python tools/trials.py steps                      # time of a step, variants in turns
    python tools/trials.py quality                    # test MSE after one pass over 24,000 digits
    python tools/trials.py quality --only adamw muon  # these rows alone

`quality` trains each variant anew and evaluates the averaged weights on all 10,000 test digits.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import build_trainer, in_turns, time_steps
from torch.nn.attention import SDPBackend, sdpa_kernel

from vae import TrainConfig, Trainer, VAEConfig

PLAIN = {"w_perceptual": 0.0, "w_adversarial": 0.0, "lpips_images": 0}
FULL = {"adversarial_start": 0.0}
BETA = 0.03
STEPS = 12  # three rounds of the terms that count every fourth step


def adamw(trainer: Trainer, lr: float = 2e-3, fused: bool = True) -> None:
    """AdamW for all parameters in place of Muon."""
    parameters = trainer.networks.model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr, (0.9, 0.99), weight_decay=1e-2, fused=fused)
    trainer.networks.optimizer = trainer.scheduled = optimizer
    trainer.peaks = [lr]


def compiled(trainer: Trainer) -> None:
    """The model through torch.compile; prints how long the first two steps take."""
    torch._functorch.config.donated_buffer = False  # a step goes backward more than once
    trainer.networks.model = torch.compile(trainer.networks.model)
    print(f"torch.compile: the first two steps took {2 * time_steps(trainer, 2):.0f} s")


def plain_attention(trainer: Trainer) -> None:
    """Attention as two matrix products and a softmax, without the fused kernel."""
    trainer.optimize = sdpa_kernel(SDPBackend.MATH)(trainer.optimize)


STEP_TRIALS: dict[str, tuple[dict, Callable | None]] = {  # settings, and what is done to a trainer
    "MSE + KL": (PLAIN, None),
    "AdamW, fused": (PLAIN, adamw),
    "AdamW, a loop over tensors": (PLAIN, lambda trainer: adamw(trainer, fused=False)),
    "contiguous, not channels-last": (
        PLAIN,
        lambda trainer: trainer.networks.model.to(memory_format=torch.contiguous_format),
    ),
    "attention without the fused kernel": (PLAIN, plain_attention),
    "torch.compile": (PLAIN, compiled),
    "bf16 autocast": (PLAIN | {"mixed_precision": "bf16"}, None),
    "all four terms": (FULL, None),
    "all four, torch.compile": (FULL, compiled),
    "all four, CUDA graphs": (FULL | {"cuda_graphs": True}, None),
    "every step: LPIPS on 1/16, R1": (FULL | {"lazy": 1, "perceptual_share": 1 / 16}, None),
    "every second step": (FULL | {"lazy": 2, "perceptual_share": 1 / 16}, None),
}
QUALITY_TRIALS: dict[str, tuple[dict, Callable | None]] = {
    "muon": ({}, None),
    "adamw": ({}, adamw),
    "adamw, lr 4e-3": ({}, lambda trainer: adamw(trainer, 4e-3)),
    "muon, lr 2e-3": ({"learning_rate": 2e-3}, None),
    "muon, lr 1.5e-2": ({"learning_rate": 1.5e-2}, None),
    "batch 16": ({"batch_size": 16}, None),
    "batch 64": ({"batch_size": 64}, None),
    "widths 24, 48": ({"channels": (16, 24, 48)}, None),
    "widths 48, 96": ({"channels": (16, 48, 96)}, None),
    "two blocks": ({"blocks": 2}, None),
    "no cross-attention": ({"cross_attention": False}, None),
    "no self-attention": ({"self_attention": False}, None),
}


def build(settings: dict, change: Callable | None, images: int | None = None) -> Trainer:
    """A trainer of latent size 2 with `settings`, some of which are the model's."""
    model = {k: v for k, v in settings.items() if k in VAEConfig.__dataclass_fields__}
    rest = {"epochs": 1, "beta": BETA, "max_train_images": images}
    rest |= {k: v for k, v in settings.items() if k not in model}
    trainer = build_trainer(TrainConfig(VAEConfig(**model), **rest))
    if change:
        change(trainer)
    return trainer


def step_trials(names: list[str], rounds: int = 5) -> None:
    """The time of a step of each, in turns."""
    trainers = {name: build(*STEP_TRIALS[name]) for name in names}
    work = {name: partial(time_steps, trainer, STEPS) for name, trainer in trainers.items()}
    in_turns(work, 1)  # a warm-up
    medians = in_turns(work, rounds)
    print(f"{'step':<36}{'ms':>8}{'of MSE + KL':>13}")
    base = medians.get("MSE + KL", medians[names[0]])
    for name, median in medians.items():
        print(f"{name:<36}{median * 1e3:>8.1f}{median / base:>13.2f}")


def quality_trials(names: list[str], images: int) -> None:
    """Train each on the same images and evaluate it: compare MSE and seconds together."""
    print(f"latent 2, MSE + KL, beta {BETA}, one pass over {images:,} digits")
    print(f"{'variant':<20}{'seconds':>9}{'MSE':>9}{'SSIM':>8}{'PSNR':>7}{'KL':>7}")
    for name in names:
        settings, change = QUALITY_TRIALS[name]
        trainer = build(PLAIN | settings, change, images)
        seconds = trainer.total_steps * time_steps(trainer, trainer.total_steps)
        test = trainer.evaluate(mean=False, lpips_images=0)
        row = test["sample"]
        print(f"{name:<20}{seconds:>9.0f}{row['mse']:>9.5f}{row['ssim']:>8.4f}"
              f"{row['psnr']:>7.2f}{test['kl']:>7.0f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("steps", "quality"))
    parser.add_argument("--only", nargs="+", help="these rows alone")
    parser.add_argument("--images", type=int, default=24_000, help="to train on, for quality")
    options = parser.parse_args()
    trials = STEP_TRIALS if options.what == "steps" else QUALITY_TRIALS
    here = [name for name in trials if "CUDA" not in name or torch.cuda.is_available()]
    names = options.only or here
    if unknown := set(names) - set(trials):
        parser.error(f"--only {sorted(unknown)}: not one of {list(trials)}")
    if options.what == "steps":
        step_trials(names)
    else:
        quality_trials(names, options.images)


if __name__ == "__main__":
    main()
