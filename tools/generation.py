"""Have the judge score what every shipped model generates, into `assets/generation.json`.

    python tools/generation.py [--only "latent_4, prior" ...]

10,000 draws of each, and reconstructions and training digits as floors. A row of the same weights
is not measured again. The bounds of the global models go to `assets/bounds.json`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from latents import decode, encode
from results import ASSETS, CONDITIONAL, REFERENCE, fingerprint, read_json, write_json
from torch import Tensor

from vae import (
    VAE,
    LatentPrior,
    active_units,
    importance_weighted_bound,
    judge_images,
    load_digits,
    scale_images,
)
from vae.figures import tile
from vae.run import read_metrics

DRAWS = 10_000
BOUND_IMAGES, BOUND_SAMPLES = 1000, 500
SIZES = sorted(REFERENCE)
GENERATION, BOUNDS = ASSETS / "generation.json", ASSETS / "bounds.json"


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def reconstructions(name: str) -> tuple[Tensor, None]:
    """The test digits through z ~ q(z|x)."""
    model, (images, labels) = VAE.from_pretrained(ASSETS / name), load_digits("test")
    given = labels if model.config.num_classes else None
    return decode(model, encode(model, images, given, generator()), given), None


def balanced() -> Tensor:
    """Every digit as often."""
    return torch.arange(DRAWS) % 10


def draws(name: str) -> tuple[Tensor, Tensor | None]:
    """Decoded draws of N(0, I), with the labels of a conditional model."""
    model = VAE.from_pretrained(ASSETS / name)
    labels = balanced() if model.config.num_classes else None
    return model.sample(DRAWS, labels, generator()), labels


def prior_draws(name: str, guidance: float | None = None) -> tuple[Tensor, Tensor]:
    """Decoded draws of the learned prior, for labels that were asked for."""
    model, prior = VAE.from_pretrained(ASSETS / name), LatentPrior.from_pretrained(ASSETS / name)
    z = prior.sample(DRAWS, balanced(), generator(), guidance=guidance)
    return decode(model, z), balanced()


def sources() -> dict[str, Callable[[], tuple[Tensor, Tensor | None]]]:
    """The name of each row, and what gives its images and the digits that were asked for."""
    train = load_digits("train")
    rows = {
        "training digits": lambda: (
            scale_images(train.images[:DRAWS]),
            train.labels[:DRAWS],
        ),
        "test digits": lambda: (scale_images(load_digits("test").images), load_digits("test")[1]),
    }
    for name in [f"{kind}_{size}" for kind in ("latent", "global") for size in SIZES]:
        rows[f"{name}, reconstructions"] = lambda name=name: reconstructions(name)
        rows[f"{name}, N(0, I)"] = lambda name=name: draws(name)
        if name.startswith("latent"):
            rows[f"{name}, prior, unguided"] = lambda name=name: prior_draws(name, 1.0)
            rows[f"{name}, prior"] = lambda name=name: prior_draws(name)
    rows[f"{CONDITIONAL}, N(0, I)"] = lambda: draws(CONDITIONAL)
    return rows


def weights(row: str) -> list[Path]:
    """The files of weights that a row of either file is measured with, beside the judge's."""
    if row.endswith(" digits"):
        return []
    name, _, source = row.partition(", ")
    files = ["model.safetensors"] + ["prior.safetensors"] * source.startswith("prior")
    return [ASSETS / name / file for file in files]


def bound(name: str) -> dict:
    """The importance-weighted bound on some test digits, beside the ELBO on the same."""
    model, metrics = VAE.from_pretrained(ASSETS / name), read_metrics(ASSETS / name)
    images, labels = load_digits("test")
    given = labels if model.config.num_classes else None
    some = given if given is None else given[:BOUND_IMAGES]
    variance = metrics["test"]["sample"]["mse"]
    iw = importance_weighted_bound(
        model, images[:BOUND_IMAGES], variance, some, samples=BOUND_SAMPLES
    )
    one = importance_weighted_bound(model, images[:BOUND_IMAGES], variance, some, samples=1)
    return {
        "neg_bound": -iw.mean().item(),
        "neg_elbo_one_draw": -one.mean().item(),
        "samples": BOUND_SAMPLES,
        "images": BOUND_IMAGES,
        "active_units": active_units(model, images, given),
    }


def draw_generation(columns: int = 8, rows: int = 5) -> None:
    """`assets/generation.png`: draws of each size from N(0, I), from its learned prior, on 1x1."""
    n = columns * rows
    figure, axes = plt.subplots(len(SIZES), 3, figsize=(11, 7.2), layout="constrained")
    for line, size in zip(axes, SIZES, strict=True):
        grid, whole = (VAE.from_pretrained(ASSETS / f"{k}_{size}") for k in ("latent", "global"))
        prior = LatentPrior.from_pretrained(ASSETS / f"latent_{size}")
        panels = {
            "7×7, N(0, I)": grid.sample(n, None, generator()),
            "7×7, learned prior": grid.sample(n, balanced()[:n], generator(), prior),
            "1×1, N(0, I)": whole.sample(n, None, generator()),
        }
        for axis, (title, images) in zip(line, panels.items(), strict=True):
            axis.imshow(tile(images[:, 0].numpy(), columns), cmap="gray", vmin=-1, vmax=1)
            axis.set_title(f"latent size {size} on {title}", fontsize=11)
            axis.set_axis_off()
    figure.savefig(ASSETS / "generation.png", dpi=90)
    plt.close(figure)


def main() -> None:
    rows = sources()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(rows), help="these rows alone")
    options = parser.parse_args()
    neighbours = load_digits("train").images
    for name, source in rows.items():
        of = fingerprint(*weights(name))
        if options.only and name not in options.only:
            continue
        if read_json(GENERATION).get(name, {}).get("weights") == of:
            continue
        images, labels = source()
        own = None if name == "training digits" else neighbours  # each is its own neighbour
        scores = judge_images(images, labels, neighbours=own)
        there = read_json(GENERATION)
        there[name] = scores | {"weights": of}
        write_json(GENERATION, {row: there[row] for row in rows if row in there})
        print(name, {k: v for k, v in there[name].items() if k != "classes"}, flush=True)
    if options.only:
        return
    draw_generation()
    for name in [*(f"global_{size}" for size in SIZES), CONDITIONAL]:
        there, of = read_json(BOUNDS), fingerprint(*weights(name))
        if there.get(name, {}).get("weights") != of:
            there[name] = bound(name) | {"weights": of}
            write_json(BOUNDS, there)
            print(name, there[name], flush=True)


if __name__ == "__main__":
    main()
