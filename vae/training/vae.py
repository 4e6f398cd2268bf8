"""The training of a VAE with all four loss terms: its data, its networks, what is measured."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vae_show.frames import Frames, frame_steps
from vae_show.run import Run
from vae_store.checkpoint import CHECKPOINT_NAME
from vae_store.environment import take_threads
from vae_store.files import as_path
from vae_store.folder import check_directory, is_finished
from vae_store.pictures import is_own
from vae_store.settings import check_kind, check_same_settings

from ..checks import check_classes, gaussian, uniform
from ..data import Digits, binarise, class_names, load_digits, scale_images
from ..discriminator import PatchDiscriminator
from ..model import VAE
from . import step
from .config import TrainConfig, with_budget
from .couplings import fit_couplings
from .isolation import Seeded, apart
from .loop import complete
from .machine import Machine, check_tracker
from .run_loop import RUNNING_IMAGES, RunLoop


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
        config = replace(config, model=config.model.fitted(*run.model.config.image_shape[:2]))
        check_same_settings(run.metrics["config"], config, f"run_dir={directory}, finished,")
        return run
    check_directory(directory)
    take_threads(config.threads, directory / CHECKPOINT_NAME)
    trainer = Trainer(config, directory)
    complete(trainer, resume)
    return trainer.run


class Trainer(RunLoop):
    """One training of a VAE. The method is `training_step` in `vae/training/step.py`."""

    def __init__(self, config: TrainConfig, run_dir: str | Path):
        check_tracker(config.log_with)
        config, machine = with_budget(config), Machine(config.mixed_precision)
        self.train_set = self._load(config, machine, "train", config.max_train_images)
        config = config.fitted(self.train_set.images)
        self.test_set = self._load(config, machine, "test", config.max_test_images)
        super().__init__(
            config, as_path(run_dir, "run_dir"), machine, *self.train_set, *self.test_set
        )
        if is_own(config.dataset):
            self.metrics["train_images"] = self.count
        if names := class_names(config.dataset, config.data_root):
            self.metrics["classes"] = names
        self.adversarial_from = round(config.adversarial_start * self.total_steps)
        early, per_epoch = config.early_evaluations, self.steps_per_epoch
        self.early = {max(1, round(per_epoch * k / (early + 1))) for k in range(1, early + 1)}
        with Seeded(config.seed):
            networks = {"model": VAE(config.model)}
            networks["discriminator"] = PatchDiscriminator(image_shape=config.model.image_shape)
        rates = {"optimizer": config.learning_rate, "d_optimizer": config.discriminator_lr}
        shared = self.prepare({k: m.to(self.device) for k, m in networks.items()}, rates)
        start = {"perceptual": 0.0, "penalty": step.PENALTY[0]}
        for name, value in start.items():
            self.memory[name] = torch.tensor(value, dtype=torch.float32, device=self.device)
        self.result = self.ema
        if config.model.coupling_count:
            none = torch.zeros(0, *config.model.latent_shape, dtype=torch.float32)
            codes = {"codes": none, "codes_of": torch.zeros(0, dtype=torch.int64)}
            self.memory |= {name: tensor.to(self.device) for name, tensor in codes.items()}
        self.networks = step.Networks(*shared, self.load_lpips(), self.memory, config, machine)
        self.frames = Frames(self.test_set, config.projected_images)
        self.noted = set(frame_steps(self.total_steps, config.frames))

    @staticmethod
    def _load(config: TrainConfig, machine: Machine, split: str, n: int | None) -> Digits:
        model, place = config.model, (config.dataset, config.data_root)
        size = None if "image_size" in model.left_open else model.image_size
        channels = None if "image_channels" in model.left_open else model.image_channels
        with machine.main_process_first():  # one process downloads, the others read
            images, labels = load_digits(split, *place, size=size, channels=channels)
        digits = Digits(machine.hold(images[:n]), labels[:n].to(machine.device))
        if model.num_classes:
            seen = f"{len(digits.labels):,} {split} images of dataset={config.dataset!r}"
            check_classes(digits.labels, model.num_classes, seen, split == "train")
        return digits

    def select(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, *image_shape) in [-1, 1], and labels (B,) for a conditional model."""
        labels = self.train_set.labels[index] if self.config.model.num_classes else None
        return scale_images(self.machine.fetch(self.train_set.images, index)), labels

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The noise of z = mean + std * noise, (n, C, G, G); and for a Bernoulli, of `binarise`."""
        model = self.config.model
        noise = gaussian(n, *model.latent_shape, generator=generator)
        if model.likelihood == "calibrated":
            return (noise,)
        return noise, uniform(n, *model.image_shape, generator=generator)

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether the lazy terms count in this step, and whether it has a discriminator."""
        adversarial = self.config.w_adversarial > 0 and self.step >= self.adversarial_from
        return self.step % self.config.lazy == 0, adversarial

    def finish(self, started: float) -> None:
        """Fit the couplings to the codes as they are now, and measure again; then as every run."""
        steps = round(self.config.coupling_steps * self.total_steps)
        if steps and self.config.model.posterior == "coupled":
            self.log.seconds += fit_couplings(self.result, self.train_set, self.config, steps)
            self.measure()
        super().finish(started)

    def training_step(self, x: Tensor, labels: Tensor | None, noise: Tensor,
                      *drawn: Tensor) -> dict[str, Tensor]:  # fmt: skip
        x = binarise(x, *drawn) if drawn else x
        _, adversarial = self.kind
        return step.training_step(self.networks, self.step, adversarial, x, labels, noise)


def training_minutes(config: TrainConfig) -> tuple[float, str]:
    """About how long a training takes here, by a few steps and a small evaluation; and on what."""
    few, seconds = replace(config, max_test_images=500, adversarial_start=0.0), []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(few, folder)
    for _ in range(3):  # the first steps are slower
        start = time.perf_counter()
        for _ in range(config.lazy):
            trainer.optimize()
        trainer.log.look(trainer)  # which waits for the device
        seconds.append((time.perf_counter() - start) / config.lazy)
    start = time.perf_counter()
    trainer.evaluate(mean=False, lpips_images=0)
    measured = (time.perf_counter() - start) * 10_000 / 500
    # the last evaluation, frames and pictures take as long as five; those on the way are small
    small = trainer.config.early_evaluations + config.epochs
    rest = measured * (5 + small * RUNNING_IMAGES / 10_000)
    hardware = trainer.metrics["environment"]["hardware"]
    return (min(seconds[1:]) * trainer.total_steps + rest) / 60, hardware
