"""Every picture of a run, drawn into its folder."""

from pathlib import Path

import torch

from ..data import Digits
from .animations import (
    FRAME_MS,
    INTERPOLATION_MS,
    LAST_FRAME_MS,
    interpolation_frames,
    latent_frames,
    reconstruction_frames,
    save_gif,
)
from .figures import describe, plot_curves, plot_digits, plot_manifold, plot_samples, save_png
from .run import Run


def render(run: Run) -> list[Path]:
    """Draw every picture of a run into its folder; returns their paths."""
    config, frames, history = run.model.config, run.frames, run.metrics["history"]
    name = describe(config, run.metrics["config"]["dataset"])
    examples = Digits(torch.from_numpy(frames.originals)[:, None], torch.from_numpy(frames.classes))
    between = interpolation_frames(run.model, examples, name)
    gifs = {  # file: frames, and how long each and the last is shown
        "reconstruction.gif": (reconstruction_frames(frames, name), FRAME_MS, LAST_FRAME_MS),
        "latent.gif": (latent_frames(frames, name, config.latent_values), FRAME_MS, LAST_FRAME_MS),
        "interpolation.gif": (between, INTERPOLATION_MS, INTERPOLATION_MS),
    }
    pngs = {
        "train_metrics.png": plot_curves(history["train"], f"Training, {name}"),
        "test_metrics.png": plot_curves(history["test"], f"Test set, {name}"),
        "samples.png": plot_samples(run.model, name),
    }
    if config.latent_values == 2 and not config.num_classes:
        pngs["manifold.png"] = plot_manifold(run.model, name)
    if config.num_classes:
        pngs["digits.png"] = plot_digits(run.model, name)
    for picture, drawn in gifs.items():
        save_gif(run.directory / picture, *drawn)
    for picture, figure in pngs.items():
        save_png(run.directory / picture, figure)
    return [run.directory / picture for picture in (*gifs, *pngs)]
