"""Train a judge, measure it, and put it where it is read.

    python tools/train_judge.py first   # vae/machinery/weights, which the package reads
    python tools/train_judge.py second  # assets/second_judge, another architecture

They learn from MNIST's 60,000 training digits, each turned, moved, scaled and slanted a little anew
in every pass. Some are spoiled as bad generators spoil them: blurred, or with the ghost of another
digit. The more of a digit is lost, the less sure of it a judge has to be.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from scoring import SECOND, SecondJudge
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from vae import Judge, judge_images, load_digits, scale_images
from vae.machinery.judge import FOLDER
from vae.machinery.optimizer import Muon, one_cycle
from vae.pretrained import write_json

JUDGES = {"first": (Judge, FOLDER, 0), "second": (SecondJudge, SECOND, 1)}  # folder, seed
EPOCHS, BATCH = 8, 64
LEARNING_RATE, WEIGHT_DECAY, WARMUP = 5e-3, 0.05, 0.15
TURN, MOVE, SCALE, SLANT = math.radians(12), 2 / 14, 0.12, 0.15  # at most; 14 pixels are 1
BLURRED, GHOSTS = BATCH // 4, BATCH // 6  # of a batch
BLUR = 0.3, 2.0  # least and most standard deviation of a Gaussian blur, in pixels
VISIBLE, HOPELESS = 0.4, 1.4  # blur from which a digit is less than sure, and by chance
UNSURE = 0.9  # of the target, at most, goes to all classes alike
GHOST = 0.5  # the other digit's share of the image, at most


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


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Each of `x`: (B, 1, 28, 28) in [-1, 1] under a Gaussian of its own `sigma`: (B,), pixels."""
    place = torch.arange(-6.0, 7.0)
    kernel = torch.exp(-0.5 * (place / sigma[:, None]).square())  # (B, 13)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, None]
    y = F.conv2d(x.transpose(0, 1) + 1, kernel, padding=(0, 6), groups=len(x))
    y = F.conv2d(y, kernel.transpose(2, 3), padding=(6, 0), groups=len(x))
    return (y.transpose(0, 1) - 1).clamp(-1, 1)


def spoil_images(x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch whose first images are blurred and whose next have ghosts, and its targets (B, 10).

    What is lost of an image, from none to all of it, moves its target to all classes alike.
    """
    lost = torch.zeros(len(x))
    least, most = BLUR
    sigma = least + (most - least) * torch.rand(BLURRED, generator=generator)
    lost[:BLURRED] = ((sigma - VISIBLE) / (HOPELESS - VISIBLE)).clamp(0, 1)
    share = GHOST * torch.rand(GHOSTS, generator=generator)
    lost[BLURRED : BLURRED + GHOSTS] = share / GHOST
    ghosts = x[BLURRED : BLURRED + GHOSTS].lerp(x[-GHOSTS:], share.view(-1, 1, 1, 1))
    x = torch.cat([blur(x[:BLURRED], sigma), ghosts, x[BLURRED + GHOSTS :]])
    return x, F.one_hot(labels, 10).float().lerp(torch.tensor(0.1), UNSURE * lost[:, None])


def train(judge: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    images, labels = load_digits("train")
    optimizer = Muon(judge, LEARNING_RATE, WEIGHT_DECAY)
    steps_per_epoch = len(images) // BATCH
    schedule = LambdaLR(optimizer, one_cycle(WARMUP, steps_per_epoch * EPOCHS))
    for step in tqdm(range(steps_per_epoch * EPOCHS), mininterval=10):
        if (position := step % steps_per_epoch) == 0:
            order = torch.randperm(len(images), generator=generator)
        index = order[position * BATCH :][:BATCH]
        x = move_images(scale_images(images[index]), generator)
        x, target = spoil_images(x, labels[index], generator)
        F.cross_entropy(judge(x), target).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return judge.eval()


def measure(judge: nn.Module) -> dict:
    """Accuracy, and the share of test digits recognised: as they are, and blurred by a window."""
    (train_images, train_labels), (images, labels) = load_digits("train"), load_digits("test")
    found = {"train_accuracy": judge_images(train_images, train_labels, judge=judge)["accuracy"]}
    scores = judge_images(images, labels, judge=judge)
    found |= {"test_accuracy": scores["accuracy"], "recognised": scores["recognised"]}
    for size in (3, 5):
        x = F.avg_pool2d(scale_images(images) + 1, size, 1, size // 2) - 1
        found[f"recognised, blurred by {size}x{size}"] = judge_images(x, judge=judge)["recognised"]
    return found | {"parameters": sum(p.numel() for p in judge.parameters())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=JUDGES)
    kind, folder, seed = JUDGES[parser.parse_args().which]
    torch.manual_seed(seed)
    started = time.perf_counter()
    judge = train(kind(), seed)
    measured = {"epochs": EPOCHS, "seed": seed, "seconds": time.perf_counter() - started}
    measured |= measure(judge)
    judge.save_pretrained(folder)
    write_json(folder / "metrics.json", measured)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
