"""The training of a VAE with all four loss terms: its data, its networks, what is measured."""

import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ..checks import check_classes, gaussian
from ..data import Digits, load_digits, scale_images
from ..discriminator import PatchDiscriminator
from ..metrics import AGREEMENT, evaluate
from ..model import VAE
from ..perceptual import LPIPS
from ..show.frames import Frames, frame_steps
from ..show.run import Run, render
from ..store.checkpoint import CHECKPOINT_NAME, under
from ..store.files import as_path
from ..store.folder import FRAMES_NAME, check_directory, is_finished
from ..store.settings import check_kind, check_same_settings
from . import step
from .config import TrainConfig, with_budget
from .isolation import Seeded, apart
from .loop import Loop, complete
from .machine import Machine, peak_memory_mb

RUNNING_LPIPS_IMAGES = 200  # LPIPS of all 10,000 would take longer than an epoch on a CPU


@apart()
def train(config: TrainConfig, run_dir: str | Path, *, resume: bool = True) -> Run:
    """Train a VAE; leave model, metrics and pictures in `run_dir`.

    A finished run of the same settings is loaded, and one that was cut off goes on from its last
    checkpoint (on a CPU to the same weights, bit for bit), unless `resume` is False. An interrupt
    (Ctrl-C) finishes the step, saves a checkpoint and returns the run as it stands, with
    "interrupted" in its metrics.

    Raises, before any work, `ValueError` for a run of other settings in `run_dir` and for settings
    that do not fit the data, and `OSError` when there is no space or another training is at work
    there. Raises `FloatingPointError`, naming term and step, when a loss is no longer finite.
    """
    check_kind(config, "config", TrainConfig)
    config, directory = with_budget(config), as_path(run_dir, "run_dir")
    if is_finished(directory) and not (directory / CHECKPOINT_NAME).is_file():
        run = Run.load(directory)
        check_same_settings(run.metrics["config"], config, f"run_dir={directory}, finished,")
        return run
    check_directory(directory)
    trainer = Trainer(config, directory)
    complete(trainer, resume)
    return trainer.run


class Trainer(Loop):
    """One training of a VAE. The method is `training_step` in `vae/training/step.py`."""

    def __init__(self, config: TrainConfig, run_dir: str | Path):
        config, machine = with_budget(config), Machine(config.mixed_precision)
        self.train_set = self._load(config, machine, "train", config.max_train_images)
        self.test_set = self._load(config, machine, "test", config.max_test_images)
        super().__init__(
            config, as_path(run_dir, "run_dir"), machine, *self.train_set, *self.test_set
        )
        self.adversarial_from = round(config.adversarial_start * self.total_steps)
        early, per_epoch = config.early_evaluations, self.steps_per_epoch
        self.early = {max(1, round(per_epoch * k / (early + 1))) for k in range(1, early + 1)}
        with Seeded(config.seed):
            networks = {"model": VAE(config.model), "discriminator": PatchDiscriminator()}
        rates = {"optimizer": config.learning_rate, "d_optimizer": config.discriminator_lr}
        shared = self.prepare({k: m.to(self.device) for k, m in networks.items()}, rates)
        needs_lpips = config.w_perceptual or config.lpips_images
        lpips = LPIPS(config.lpips_variant).to(self.device) if needs_lpips else None
        start = {"perceptual": 0.0, "penalty": step.PENALTY[0]}
        for name, value in start.items():
            self.memory[name] = torch.tensor(value, dtype=torch.float32, device=self.device)
        self.networks = step.Networks(*shared, lpips, self.memory, config, machine)
        self.frames = Frames(self.test_set, config.projected_images)
        self.noted = set(frame_steps(self.total_steps, config.frames))

    @staticmethod
    def _load(config: TrainConfig, machine: Machine, split: str, n: int | None) -> Digits:
        with machine.main_process_first():  # one process downloads, the others read
            digits = load_digits(split, config.dataset, config.data_root)
        digits = Digits(*(part[:n].to(machine.device) for part in digits))
        if config.model.num_classes:
            seen = f"{len(digits.labels):,} {split} images of dataset={config.dataset!r}"
            check_classes(digits.labels, config.model.num_classes, seen, split == "train")
        return digits

    def select(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, 1, 28, 28) in [-1, 1], and labels (B,) for a conditional model."""
        labels = self.train_set.labels[index] if self.config.model.num_classes else None
        return scale_images(self.train_set.images[index]), labels

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor]:
        """The noise of z = mean + std * noise: (n, C, G, G)."""
        return (gaussian(n, *self.config.model.latent_shape, generator=generator),)

    def training_step(self, x: Tensor, labels: Tensor | None, noise: Tensor) -> dict[str, Tensor]:
        adversarial = self.config.w_adversarial > 0 and self.step >= self.adversarial_from
        return step.training_step(self.networks, self.step, adversarial, x, labels, noise)

    def note(self) -> None:
        """Record a frame of the GIFs."""
        self.frames.record(self.ema, self.test_set, self.place()["epoch"])

    def measure(self) -> None:
        """Evaluate the averaged weights, and save model, metrics and frames."""
        lpips_images = min(RUNNING_LPIPS_IMAGES, self.config.lpips_images)
        measured = self.evaluate(mean=False, lpips_images=lpips_images)
        rate = {k: measured[k] for k in ("kl", "neg_elbo") if k in measured}
        row = self.place() | {"training_seconds": self.log.seconds}
        self.metrics["history"]["test"].append(row | measured["sample"] | rate)
        self.run.save()

    def evaluate(self, **options) -> dict:
        return evaluate(self.ema, *self.test_set, lpips=self.networks.lpips, **options)

    def finish(self, started: float) -> None:
        """Measure the final table by scikit-image, mark the run as finished, draw the pictures."""
        test = self.evaluate(lpips_images=self.config.lpips_images, reference=True)
        if (apart := test["skimage_difference"]) > AGREEMENT:
            text = f"MSE, SSIM or PSNR differs from scikit-image's by {apart:.2g}"
            warnings.warn(f"{text}, more than {AGREEMENT}", stacklevel=2)
        seconds = {"training": self.log.seconds, "all": time.perf_counter() - started}
        self.metrics |= {"seconds": seconds, "peak_memory_mb": peak_memory_mb(self.device)}
        self.metrics["test"] = test  # which is what makes it finished
        self.run.save()
        render(self.run)  # which warns of pictures that cannot be drawn, and goes on
        self.frames.save(self.directory / FRAMES_NAME)  # projected, which is smaller

    def record(self) -> dict[str, Tensor]:
        return {f"frames.{k}": torch.from_numpy(v) for k, v in self.frames.arrays().items()}

    def take_record(self, tensors: dict[str, Tensor]) -> None:
        arrays = {k: t.numpy() for k, t in under("frames", tensors).items()}
        if "latents" not in arrays:  # an older version's, which recorded them at evaluations
            per_frame = ("epochs", "points", "reconstructions")
            arrays |= {name: arrays[name][:0] for name in per_frame}
        self.frames.restore(arrays)

    @property
    def run(self) -> Run:
        """The run as it stands: the averaged weights, the metrics and the frames so far."""
        return Run(self.directory, self.ema, self.metrics, self.frames)
