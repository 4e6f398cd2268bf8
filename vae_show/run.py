"""A run: what a training leaves in its folder, read and written as one."""

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vae.data import CLASSES, Digits
from vae.model import VAE
from vae.prior import LatentPrior
from vae_store import folder, hub
from vae_store.files import FileError, as_path, write_atomically, write_json

from . import animations, figures
from .card import model_card
from .frames import Frames

ALL_FRAMES_MS, LAST_MS = 5000, 2000  # of a training's frames together; of the last one
INTERPOLATION_MS = 150  # of each frame
DIGITS = "mnist", "emnist_digits"  # data sets of them


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
        directory = as_path(directory)
        model, metrics = VAE.from_pretrained(directory), folder.read_metrics(directory)
        return cls(directory, model, metrics, Frames.load(directory / folder.FRAMES_NAME))

    def save(self) -> None:
        """Write everything but the pictures, each file in one step; `metrics.json` comes last."""
        self.model.save_pretrained(self.directory)
        self.frames.save(self.directory / folder.FRAMES_NAME)
        write_json(self.directory / folder.METRICS_NAME, self.metrics)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None,
                    token: str | None = None) -> str:  # fmt: skip
        """Upload model, metrics, pictures, the learned prior and a card; returns the commit's URL.

        What another run left there is replaced, other files stay. The arguments and what it raises
        are as of `VAE.push_to_hub`; `FileError` too, for a run that is not finished.
        """
        hub.check_name(repo_id)
        if "test" not in self.metrics:
            raise FileError(f"{self.directory} is not a finished run: --resume goes on")
        has_prior = (self.directory / folder.PRIOR_METRICS_NAME).is_file()
        names = (*folder.PICTURES, folder.PRIOR_PICTURE_NAME) if has_prior else folder.PICTURES
        pictures = [name for name in names if (self.directory / name).is_file()]
        with tempfile.TemporaryDirectory() as made:
            self.model.save_pretrained(made)
            write_json(Path(made) / folder.METRICS_NAME, self.metrics)
            if has_prior:
                LatentPrior.from_pretrained(self.directory).save_pretrained(made)
            for name in [folder.PRIOR_METRICS_NAME] * has_prior + pictures:
                shutil.copy(self.directory / name, made)
            card = model_card(self.metrics, repo_id, pictures, has_prior)
            write_atomically(Path(made) / "README.md", card.encode())
            return hub.upload(repo_id, made, "Upload a run", private, token, folder.FILES)


def render(run: Run) -> list[Path]:
    """Draw every picture of a run into its folder; returns the paths of those that it drew.

    A warning names each that could not be drawn. Raises `FileError` if nothing was measured yet.
    """
    model, frames, history = run.model, run.frames, run.metrics["history"]
    if not history["test"] or not len(frames.epochs):
        cut = f"{run.directory} was cut off before its first evaluation"
        raise FileError(f"{cut}, and has nothing to draw: --resume goes on")
    dataset = run.metrics["config"]["dataset"]
    names = run.metrics.get("classes") or CLASSES.get(dataset, "").split()
    name, rgb = figures.describe(model.config, dataset), model.config.image_channels == 3
    thing = "digit" if dataset in DIGITS else "image"
    originals = torch.from_numpy(frames.originals)
    originals = originals if rgb else originals[:, None]
    examples = Digits(originals, torch.from_numpy(frames.classes))
    values, directory = model.config.latent_values, run.directory
    drawn = {  # what makes a PNG's figure, or a GIF's figures
        "reconstruction.gif": lambda: animations.reconstruction_frames(frames, name),
        "latent.gif": lambda: animations.latent_frames(frames, name, values, names),
        "interpolation.gif": lambda: animations.interpolation_frames(model, examples, name, thing),
        "train_metrics.png": lambda: figures.plot_curves(history["train"], f"Training, {name}"),
        "test_metrics.png": lambda: figures.plot_curves(history["test"], f"Test set, {name}"),
        "samples.png": lambda: figures.plot_samples(model, name),
    }
    if "sharpen" in run.metrics:
        del drawn["latent.gif"]  # of latents that did not move
    if model.config.num_classes:
        drawn["digits.png"] = lambda: figures.plot_digits(model, name, names=names)
    elif values == 2:
        drawn["manifold.png"] = lambda: figures.plot_manifold(model, name)
    if (directory / folder.PRIOR_METRICS_NAME).is_file():
        drawn[folder.PRIOR_PICTURE_NAME] = lambda: figures.plot_digits(
            model, name, LatentPrior.from_pretrained(directory), names=names
        )
    return [path for file, make in drawn.items() if draw(path := directory / file, make, rgb)]


def draw(path: Path, make: Callable, rgb: bool = False) -> bool:
    """Draw a picture into a file, or warn that it cannot be: no training is lost to one.

    `rgb`: it shows images in colour.
    """
    try:
        if path.suffix == ".png":
            figures.save_png(path, make())
        else:
            frames = make()
            times = min(ALL_FRAMES_MS // len(frames), 700), LAST_MS
            if path.stem == "interpolation":
                times = INTERPOLATION_MS, INTERPOLATION_MS
            animations.save_gif(path, frames, *times, rgb)
        return True
    except Exception as error:  # of matplotlib, fonts, disks: all else is there and stays
        what = f"{path} was not drawn ({type(error).__name__}: {error})"
        warnings.warn(f"{what}; python -m vae render {path.parent} draws it", stacklevel=2)
        return False
