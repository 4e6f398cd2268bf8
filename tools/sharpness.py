"""What sharpening a decoder is worth, by two judges that blur does not please.

Reconstructions of the 10,000 test digits, and as many draws of N(0, I), of each sharp model and of
the one before, are scored into `assets/sharpness.json`.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import ASSETS, Part, measurement, picture
from generation import images_of
from judges import FOLDERS, load_judges
from latents import CHUNK
from matplotlib.figure import Figure
from torch import Tensor

import vae
from vae import VAE, load_digits
from vae.judge import nearest_mse
from vae.show.figures import tile
from vae.show.frames import Frames
from vae.show.showcase import REFERENCE, SHARPENED
from vae.store.folder import FRAMES_NAME

REAL = "test digits"
SOURCES = ("reconstructions", "N(0, I)")
LPIPS_IMAGES = 1000
SCORE_SECONDS = 90
DRAWN = [f"sharp_{size}" for size in sorted(REFERENCE)]  # in the picture
KEPT = ("fid", "recognised", "accuracy", "precision", "recall", "density", "coverage")


def rows() -> list[str]:
    """The real digits, then each model's "name, source", that of before and the sharp one."""
    pairs = [(before, sharp) for sharp, before in SHARPENED.items()]
    names = [f"{name}, {source}" for pair in pairs for source in SOURCES for name in pair]
    return [REAL, *names]


def weights(name: str) -> list[Path]:
    """The files that a row is measured with."""
    judges = [folder / "model.safetensors" for folder in FOLDERS.values()]
    return judges + ([] if name == REAL else [ASSETS / name.split(", ")[0] / VAE.weights_name])


def parts() -> list[Part]:
    """The rows, and the picture."""
    found = [
        measurement(f"sharpness/{row}", SCORE_SECONDS, weights(row), partial(score, row))
        for row in rows()
    ]
    frames = [ASSETS / sharp / FRAMES_NAME for sharp in DRAWN]
    return [*found, picture("sharpness", frames, draw)]


def score(row: str) -> dict:
    """Both judges' scores of a row's images, grey pixels, LPIPS to the originals, and copies."""
    test, (images, asked) = load_digits("test"), images_of(row)
    compared = row.endswith(SOURCES[0])
    labels = test.labels if compared else asked
    scores = {judge: vae.judge_images(images, labels, judge=by)
              for judge, by in load_judges().items()}  # fmt: skip
    found = {judge: {k: scores[judge][k] for k in KEPT if k in scores[judge]} for judge in scores}
    found["grey"] = scores["strict"]["grey"]
    nearest = nearest_mse(images, load_digits("train").images)
    found |= {"nearest": nearest.median().item(), "nearest_least": nearest.min().item()}
    if compared:
        found["mse"] = vae.mse(test.images, images).mean().item()
        found["lpips"] = lpips_of(images)
    return found


@torch.no_grad()
def lpips_of(images: Tensor) -> float:
    """LPIPS of the first test digits' reconstructions."""
    lpips, originals = vae.LPIPS(), vae.scale_images(load_digits("test").images[:LPIPS_IMAGES])
    pairs = zip(originals.split(CHUNK), images[:LPIPS_IMAGES].split(CHUNK), strict=True)
    return torch.cat([lpips(*pair) for pair in pairs]).mean().item()


def draw() -> Figure:
    """For each size: some test digits, and what the decoder made of them before and after."""
    figure = Figure(figsize=(11, 1.5), dpi=110, layout="constrained")
    for axis, sharp in zip(figure.subplots(1, len(DRAWN)), DRAWN, strict=True):
        frames = Frames.load(ASSETS / sharp / FRAMES_NAME)
        rows = {"original": frames.originals, "MSE + KL": frames.reconstructions[0],
                "sharpened": frames.reconstructions[-1]}  # fmt: skip
        digits = np.concatenate(list(rows.values()))
        shown = tile(digits, len(frames.originals))
        axis.imshow(shown, cmap="gray", vmin=-1, vmax=1)
        axis.set_title(f"{VAE.from_pretrained(ASSETS / sharp).config.latent_size} numbers")
        height, first = shown.shape[0] / len(rows), axis is figure.axes[0]
        places = [height * (n + 0.5) - 0.5 for n in range(len(rows))]
        axis.set_yticks(places, rows if first else [""] * len(rows), fontsize=11)
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set(frame_on=False)
    return figure
