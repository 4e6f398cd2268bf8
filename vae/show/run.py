"""A run: what a training leaves in its folder, read and written as one."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..data import Digits
from ..model import VAE
from ..store.files import write_json
from ..store.folder import FRAMES_NAME, METRICS_NAME, read_metrics
from .frames import Frames

FRAME_MS, LAST_FRAME_MS, INTERPOLATION_MS = 400, 2500, 150  # milliseconds


@dataclass
class Run:
    """A run: its folder, its model (EMA weights), `metrics.json` as a dict, and its frames."""

    directory: Path
    model: VAE
    metrics: dict
    frames: Frames

    @classmethod
    def load(cls, directory: str | Path) -> "Run":
        """Read a run's folder. Raises `FileError` (a `ValueError`) naming the file at fault."""
        directory = Path(directory)
        return cls(
            directory,
            VAE.from_pretrained(directory),
            read_metrics(directory),
            Frames.load(directory / FRAMES_NAME),
        )

    def save(self) -> None:
        """Write everything but the pictures, each file in one step; `metrics.json` comes last."""
        self.model.save_pretrained(self.directory)
        self.frames.save(self.directory / FRAMES_NAME)
        write_json(self.directory / METRICS_NAME, self.metrics)


def render(run: Run) -> list[Path]:
    """Draw every picture of a run into its folder; returns their paths."""
    from . import animations, figures  # matplotlib and imageio, which nothing else here needs

    model, frames, history = run.model, run.frames, run.metrics["history"]
    name = figures.describe(model.config, run.metrics["config"]["dataset"])
    examples = Digits(torch.from_numpy(frames.originals)[:, None], torch.from_numpy(frames.classes))
    latents = animations.latent_frames(frames, name, model.config.latent_values)
    between = animations.interpolation_frames(model, examples, name)
    gifs = {  # file: frames, and how long each and the last is shown
        "reconstruction": (animations.reconstruction_frames(frames, name), FRAME_MS, LAST_FRAME_MS),
        "latent": (latents, FRAME_MS, LAST_FRAME_MS),
        "interpolation": (between, INTERPOLATION_MS, INTERPOLATION_MS),
    }
    pngs = {
        "train_metrics": figures.plot_curves(history["train"], f"Training, {name}"),
        "test_metrics": figures.plot_curves(history["test"], f"Test set, {name}"),
        "samples": figures.plot_samples(model, name),
    }
    if model.config.latent_values == 2 and not model.config.num_classes:
        pngs["manifold"] = figures.plot_manifold(model, name)
    if model.config.num_classes:
        pngs["digits"] = figures.plot_digits(model, name)
    for file, drawn in gifs.items():
        animations.save_gif(run.directory / f"{file}.gif", *drawn)
    for file, figure in pngs.items():
        figures.save_png(run.directory / f"{file}.png", figure)
    return [
        run.directory / f"{file}.{kind}"
        for kind, of in (("gif", gifs), ("png", pngs))
        for file in of
    ]
