"""Each variational autoencoder beside the same network as a plain one.

The plain ones of one vector for an image are in `assets/`, for the page in `explorer/`; that of a
grid is in `runs/results`. All are measured into `assets/autoencoder.json`.
"""

import itertools
from functools import partial
from pathlib import Path

import models
import torch
from common import ASSETS, FULL_SECONDS, JUDGE, RUNS, Part, measurement, picture, row, training
from latents import DEVICE, DRAWS, decode, draw_panels, encode, seeded
from matplotlib.figure import Figure
from torch import Tensor

from vae import VAE, judge_images, load_digits, mse, scale_images
from vae_store.folder import read_metrics

# The variational one of each pair is shipped.
PAIRS = {"2 on 1x1": "global_2", "4 on 1x1": "global_4", "16 on 1x1": "global_16",
         "4 on 7x7": "latent_4"}  # fmt: skip
PLAIN = {pair: like.replace("global", "plain") for pair, like in PAIRS.items()
         if "1x1" in pair}  # fmt: skip
BARE = "*.png", "*.gif", "*.npz"  # what is not shipped of a plain one
KINDS = {"plain": "o--", "variational": "o-"}  # and their lines
DRAWN, DRAWN_PAIR = 40, "16 on 1x1"  # digits that are shown, and whose
ABOUT = ("config", "environment", "test")  # kept of a run's metrics
MOVED = 2000  # test digits whose codes are moved
NOISE = (0.1, 0.2, 0.5, 1.0, 2.0)  # standard deviations of the codes
MEASURE_SECONDS = 100


def folders() -> dict[str, tuple[Path, Path]]:
    """The two folders of each pair: the plain autoencoder and the variational one."""
    place = {pair: ASSETS if pair in PLAIN else RUNS for pair in PAIRS}
    return {k: (place[k] / run_name(k), ASSETS / like) for k, like in PAIRS.items()}


def run_name(pair: str) -> str:
    """Of the pair's plain one."""
    return PLAIN.get(pair, f"autoencoder/{pair}")


def runs() -> dict[str, str]:
    """The training of each plain one: as the other of the pair, but without the KL."""
    flags = {pair: models.runs()[like] for pair, like in PAIRS.items()}
    return {run_name(k): f"{v} --no-variational --beta 0" for k, v in flags.items()}


def parts() -> list[Part]:
    """The trainings, what is measured of each pair's two models, and the picture."""
    keep = {name: partial(models.publish, leave_out=BARE) for name in PLAIN.values()}
    found = [training(name, flags, FULL_SECONDS, keep.get(name)) for name, flags in runs().items()]
    for pair, both in folders().items():
        for kind, folder in zip(KINDS, both, strict=True):
            name, weights = f"autoencoder/{pair}/{kind}", [JUDGE, folder / VAE.weights_name]
            found.append(measurement(name, MEASURE_SECONDS, weights, partial(measure, folder)))
    shown = [folder / VAE.weights_name for folder in folders()[DRAWN_PAIR]]
    return [*found, picture("autoencoder", [ASSETS / "autoencoder.json", *shown], draw)]


def fitted_draws(codes: Tensor, noise: torch.Generator) -> Tensor:
    """Draws of a Gaussian with the mean and the covariance of `codes`."""
    flat = codes.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T).reshape(flat.shape[1], -1))
    draws = torch.randn(DRAWS, flat.shape[1], generator=noise, dtype=torch.float64)
    draws = (draws * values.clamp_min(0).sqrt()) @ vectors.T + flat.mean(0)
    return draws.float().view(-1, *codes.shape[1:])


def measure(folder: Path) -> dict:
    """Everything about one model: reconstruction, generation, noise, midpoints.

    A code is z ~ q(z|x), as the decoder saw it in training; of a plain one, the point itself.
    """
    model, metrics, generator = VAE.from_pretrained(folder), read_metrics(folder), seeded()
    (images, labels), train = load_digits("test"), load_digits("train").images[:DRAWS]
    model, x = model.to(DEVICE), scale_images(images).to(DEVICE)
    codes = encode(model, images, generator)
    known = encode(model, train, generator)
    std = known.std(0)
    unit = torch.randn(DRAWS, *codes.shape[1:], generator=generator)
    draws = {"N(0, I)": unit, "fitted Gaussian": fitted_draws(known, generator)}
    result = {"mse": mse(x, decode(model, codes)).mean().item(), "code_std": std.mean().item()}
    for name, z in draws.items():
        scores = judge_images(decode(model, z))
        result[name] = {key: scores[key] for key in ("fid", "recognised")}
    result["noise"] = {}
    moved = torch.randn(MOVED, *codes.shape[1:], generator=generator) * std
    for share in NOISE:
        y = decode(model, codes[:MOVED] + share * moved)
        scores = judge_images(y, labels[:MOVED], reference=images[:MOVED])
        error = mse(x[:MOVED], y).mean().item()
        result["noise"][str(share)] = {"mse": error, "accuracy": scores["accuracy"]}
    order = torch.randperm(len(codes), generator=generator)
    middle = judge_images(decode(model, (codes + codes[order]) / 2), reference=images)
    result["midpoints"] = middle["recognised"]
    return result | {part: metrics[part] for part in ABOUT}


def draw() -> Figure:
    """The curves over the noise, and draws of the largest global pair."""
    figure = Figure(figsize=(11, 6.3), dpi=90, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    titles = {"mse": "MSE of the reconstruction", "accuracy": "share read as the digit it was"}
    for axis, (key, title) in zip(top.subplots(1, 2), titles.items(), strict=True):
        for (colour, pair), kind in itertools.product(enumerate(PAIRS), KINDS):
            noise, label = row(f"autoencoder/{pair}/{kind}")["noise"], f"{pair}, {kind}"
            values = [noise[str(share)][key] for share in NOISE]
            style = {"color": f"C{colour}", "label": label.replace("x", "×"), "ms": 4}
            axis.plot(NOISE, values, KINDS[kind], **style)
        axis.set(xscale="log", xlabel="noise on the code, in its standard deviations", title=title)
        axis.set_xticks(NOISE, [f"{share:g}" for share in NOISE], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    top.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    plain, variational = (VAE.from_pretrained(folder) for folder in folders()[DRAWN_PAIR])
    generator = seeded()
    unit = torch.randn(DRAWN, *plain.config.latent_shape, generator=generator)
    known = encode(plain, load_digits("train").images[:DRAWS], generator)
    panels = {
        "16 on 1×1, plain, N(0, I)": decode(plain, unit),
        "16 on 1×1, plain, fitted Gaussian": decode(plain, fitted_draws(known, generator)[:DRAWN]),
        "16 on 1×1, variational, N(0, I)": decode(variational, unit),
    }
    draw_panels(bottom.subplots(1, 3), panels, DRAWN // 4)
    return figure
