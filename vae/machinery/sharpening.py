"""Sharpening: the decoder of a VAE with a global latent is trained on, against a discriminator."""

import copy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from .. import step
from ..data import Digits, gaussian, scale_images
from ..discriminator import ImageDiscriminator
from ..model import VAE
from ..pretrained import as_path
from ..settings import check_instance
from . import folder, latents, loop
from .config import REMEDY, SharpenConfig, check_same_settings, with_budget
from .frames import frame_steps
from .machine import Machine, isolated, seeded, to_device
from .optimizer import plateau
from .run import Recorder, Run
from .trainings import load_lpips

BETAS = 0.0, 0.99  # Adam's: no momentum, since decoder and discriminator follow each other
FRAMED = 10  # projected images in a sharpening's frames: the latents stay, and are not drawn
SUBFOLDER = "sharp"  # of the VAE's folder, for the sharpened run


def sharpen(directory: str | Path, run_dir: str | Path | None = None,
            config: SharpenConfig | None = None, *, resume: bool = True) -> Run:  # fmt: skip
    """Train the decoder of the VAE in `directory` to draw sharp digits; leave a run in `run_dir`.

    Encoder, couplings and so the rate stay as they are. The adversarial term adds what the average
    over images lacks, sharp strokes, and the error in pixels rises. `run_dir`: default:
    `directory / "sharp"`. A budget, a run that exists, one that was cut off, and an interrupt are
    treated as in `train`. Raises as `train` does, and `ValueError` for a VAE whose own training was
    cut off.
    """
    directory, config = as_path(directory), SharpenConfig() if config is None else config
    check_instance(config, "config", SharpenConfig)
    run_dir = directory / SUBFOLDER if run_dir is None else as_path(run_dir, "run_dir")
    vae = latents.finished_vae(directory, "its decoder would be another")
    config = with_budget(config, images=folder.own_images(directory))
    if (grid := vae.config.latent_grid) != 1:
        raise ValueError(f"latent_grid={grid} leaves no blur to cure: latent_grid=1 is expected")
    if vae.config.likelihood == "bernoulli":
        given = "likelihood='bernoulli' has no distortion to sharpen"
        raise ValueError(f"{given}: likelihood='calibrated' is expected")
    if folder.is_finished(run_dir):
        saved = sharpen_settings(folder.read_metrics(run_dir), directory, run_dir)
        check_same_settings(saved, config, f"run_dir={run_dir}, finished,")
        latents.digits_of(vae, directory, config)  # raises for other data
        return Run.load(run_dir)
    folder.check_directory(run_dir)
    with isolated(config.threads, run_dir / folder.CHECKPOINT_NAME):
        loop.train(training := SharpenTrainer(vae, directory, run_dir, config), resume)
    return training.recorder.run


class SharpenTrainer(loop.Training):
    """One training of a decoder, by `sharpening_step` in `vae/step.py`."""

    def __init__(self, vae: VAE, source: Path, directory: Path, config: SharpenConfig):
        config = with_budget(config)
        train_set, test_set, before, classes = latents.digits_of(vae, source, config)
        machine, data = Machine(config.mixed_precision), (*train_set, *test_set)
        with seeded(config.seed):
            discriminator = ImageDiscriminator(classes, image_shape=vae.config.image_shape)
        self.source, self.vae = source, vae.to(machine.device).requires_grad_(False)
        self.images = machine.store(train_set.images)
        self.mean, self.std, self.labels = latents.encode(vae, *train_set)
        count = before["config"].get("max_test_images")
        test_set = Digits(*(part[:count].to(machine.device) for part in test_set))
        self.decoder = copy.deepcopy(vae.decoder).requires_grad_(True)
        self.discriminator = discriminator.to(machine.device)
        self.lpips, adam = load_lpips(config, machine), torch.optim.Adam
        super().__init__(
            config, directory, machine, data,
            {"decoder": self.decoder, "discriminator": self.discriminator},
            {"decoder_optimizer": adam(self.decoder.parameters(), config.learning_rate, BETAS),
             "discriminator_optimizer": adam(self.discriminator.parameters(),
                                             config.discriminator_lr, BETAS)},
            step.Memory(), "sharpening of a decoder",
        )  # fmt: skip
        self.schedule = plateau(config.warmup, config.fall, self.total_steps)
        self.recorder = Recorder(self, test_set, FRAMED, vae)
        vae.decoder = self.ema  # the recorder measures the averaged weights
        self.frame_after = set(frame_steps(self.total_steps, config.frames))
        self.metrics |= {name: before[name] for name in ("config", "data")}
        self.metrics |= {"sharpen": asdict(config)} | latents.vae_facts(source, before)
        self.recorder.add_row(before["test"])
        self.recorder.record_frame()

    @property
    def variant(self) -> bool:
        return self.steps_done % self.config.lazy == 0

    def select(self, index: Tensor) -> tuple[Tensor, ...]:
        """Images (B, *image_shape) in [-1, 1], labels (B,), mean and std of q (B, C, 1, 1)."""
        x = scale_images(to_device(self.images[index.to(self.images.device)], self.device))
        return x, self.labels[index], self.mean[index], self.std[index]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The noise of z ~ q(z|x), (n, C, 1, 1), and samples of N(0, I), (N, C, 1, 1)."""
        shape, samples = self.vae.config.latent_shape, round(self.config.drawn_share * n)
        both = gaussian(n + samples, *shape, generator=generator)
        return both[:n], both[n:]

    def step_on(self, x: Tensor, labels: Tensor, mean: Tensor, std: Tensor, noise: Tensor,
                samples: Tensor) -> dict[str, Tensor]:  # fmt: skip
        vae, known, given = self.vae, labels[: len(samples)], None
        if vae.config.num_classes:
            given = torch.cat([labels, known])
        else:  # nobody knows the class of a sample of N(0, I)
            known = torch.full_like(known, self.discriminator.unknown)
        with torch.no_grad():
            token = vae.class_token(given, len(x) + len(samples), values=False)
            parts = (None, None) if token is None else token.split([len(x), len(samples)])
            codes = vae.decoder_input(mean + std * noise, parts[0])
            u = torch.cat([codes, vae.couplings(samples, parts[1])])
        return step.sharpening_step(self, x, labels, known, u, token)

    def check_saved(self, metrics: dict) -> None:
        settings = sharpen_settings(metrics, self.source, self.directory)
        super().check_saved(metrics | {"config": settings})


def sharpen_settings(metrics: dict, directory: Path, run_dir: Path) -> dict:
    """The settings in `run_dir`'s metrics; `ValueError` unless of the VAE in `directory` now."""
    if not isinstance(saved := metrics.get("sharpen"), dict):
        held = f"run_dir={str(run_dir)!r} holds a run whose decoder was not sharpened"
        raise ValueError(f"{held}: {REMEDY}")
    latents.check_same_vae(metrics, directory, "its decoder", REMEDY)
    return saved
