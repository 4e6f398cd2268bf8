"""Train the judge of `vae/judge` again, measure it, and put it where the package reads it.

    python tools/train_judge.py [--epochs 10]

It learns from MNIST's 60,000 training digits, each turned, moved, scaled and slanted a little
anew in every pass.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from vae import Judge, judge_images, load_digits, scale_images
from vae.judge.classifier import FOLDER
from vae.store.files import write_json
from vae.training.optimizer import Muon, one_cycle

BATCH = 64
LEARNING_RATE, WEIGHT_DECAY, WARMUP = 5e-3, 0.05, 0.15
TURN, MOVE, SCALE, SLANT = math.radians(12), 2 / 14, 0.12, 0.15  # at most; 14 pixels are 1


def move_images(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each of `x`: (B, 1, 28, 28) in [-1, 1] under a small affine map of its own."""
    turn, across, down, wide, high, slant = (
        bound * (2 * torch.rand(len(x), generator=generator) - 1)
        for bound in (TURN, MOVE, MOVE, SCALE, SCALE, SLANT)
    )
    cos, sin, wide, high = turn.cos(), turn.sin(), wide.exp(), high.exp()
    rows = [wide * cos, slant - sin, across, sin, high * cos, down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), x.shape, align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # what moves in is background, -1


def train(epochs: int, seed: int) -> Judge:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge, (images, labels) = Judge(), load_digits("train")
    optimizer = Muon(judge, LEARNING_RATE, WEIGHT_DECAY)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps_per_epoch = len(images) // BATCH
    schedule = one_cycle(WARMUP, steps_per_epoch * epochs)
    for step in tqdm(range(steps_per_epoch * epochs)):
        position = step % steps_per_epoch
        if position == 0:
            order = torch.randperm(len(images), generator=generator)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(step)
        index = order[position * BATCH :][:BATCH]
        x = move_images(scale_images(images[index]), generator)
        F.cross_entropy(judge(x), labels[index]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    judge = train(options.epochs, options.seed)
    measured = {}
    for split in ("test", "train"):
        images, labels = load_digits(split)
        scores = judge_images(scale_images(images), labels, judge=judge)
        measured[f"{split}_accuracy"] = scores["accuracy"]
    measured["parameters"] = sum(p.numel() for p in judge.parameters())
    measured |= {"seconds": time.perf_counter() - started} | vars(options)
    judge.save_pretrained(FOLDER)
    write_json(FOLDER / "metrics.json", measured)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
