"""A run: what a training leaves in its folder, read and written as one."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..data import Digits
from ..model import VAE
from ..store.files import write_json
from ..store.folder import FRAMES_NAME, METRICS_NAME, read_metrics
from .frames import Frames

FRAME_MS, INTERPOLATION_MS = (400, 2500), (150, 150)  # milliseconds of each frame, of the last


@dataclass
class Run:
    """A run's folder and what is in it."""

    directory: Path
    model: VAE  # the averaged weights
    metrics: dict  # what `metrics.json` holds
    frames: Frames

    @classmethod
    def load(cls, directory: str | Path) -> "Run":
        """Read a run's folder. Raises `FileError` (a `ValueError`) naming the file at fault."""
        directory = Path(directory)
        model, metrics = VAE.from_pretrained(directory), read_metrics(directory)
        return cls(directory, model, metrics, Frames.load(directory / FRAMES_NAME))

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
    drawn = {  # a PNG's figure; a GIF's figures, and how long each and the last is shown
        "reconstruction.gif": (animations.reconstruction_frames(frames, name), *FRAME_MS),
        "latent.gif": (latents, *FRAME_MS),
        "interpolation.gif": (between, *INTERPOLATION_MS),
        "train_metrics.png": (figures.plot_curves(history["train"], f"Training, {name}"),),
        "test_metrics.png": (figures.plot_curves(history["test"], f"Test set, {name}"),),
        "samples.png": (figures.plot_samples(model, name),),
    }
    if model.config.num_classes:
        drawn["digits.png"] = (figures.plot_digits(model, name),)
    elif model.config.latent_values == 2:
        drawn["manifold.png"] = (figures.plot_manifold(model, name),)
    for file, what in drawn.items():
        save = figures.save_png if file.endswith("png") else animations.save_gif
        save(run.directory / file, *what)
    return [run.directory / file for file in drawn]
