"""Train the judge of `vae/judge.py` again, measure it, and put it where the package reads it.

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

from vae import load_digits, scale_images
from vae.files import write_atomically
from vae.judge import FOLDER, Judge
from vae.optimizer import Muon, one_cycle

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


def accuracy(judge: Judge, split: str) -> float:
    images, labels = load_digits(split)
    with torch.no_grad():
        read = torch.cat([judge(scale_images(part)).argmax(1) for part in images.split(500)])
    return (read == labels).double().mean().item()


def train(epochs: int, seed: int) -> Judge:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge()
    images, labels = load_digits("train")
    steps = len(images) // BATCH * epochs
    optimizer = Muon(judge, LEARNING_RATE, WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(WARMUP, steps))
    with tqdm(total=steps) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for index in order.split(BATCH)[: len(images) // BATCH]:
                x = move_images(scale_images(images[index]), generator)
                loss = F.cross_entropy(judge(x), labels[index])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                bar.update()
            bar.set_postfix(loss=f"{loss.item():.3g}")
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    judge = train(options.epochs, options.seed)
    measured = {
        "test_accuracy": accuracy(judge, "test"),
        "train_accuracy": accuracy(judge, "train"),
        "parameters": sum(p.numel() for p in judge.parameters()),
        "seconds": time.perf_counter() - started,
        **vars(options),
    }
    judge.save_pretrained(FOLDER)
    text = json.dumps(measured, indent=1) + "\n"
    write_atomically(FOLDER / "metrics.json", lambda path: path.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
