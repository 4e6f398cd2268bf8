"""The training of a sharper decoder for a VAE whose latents stay as they are."""

import copy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from vae_show.frames import Frames, frame_steps
from vae_show.run import Run
from vae_store import folder
from vae_store.checkpoint import CHECKPOINT_NAME
from vae_store.environment import take_threads
from vae_store.files import as_path
from vae_store.settings import REMEDY, check_kind, check_same_settings

from ..checks import gaussian
from ..data import Digits, scale_images
from ..discriminator import ImageDiscriminator
from ..model import VAE
from . import step
from .config import SharpenConfig, with_budget
from .isolation import Seeded, apart
from .latents import check_same_vae, digits_of, encode, finished_vae, of_own_images, vae_hash
from .loop import complete
from .machine import Machine, check_tracker
from .optimizer import plateau
from .run_loop import RunLoop

BETAS = 0.0, 0.99  # Adam's: no momentum between two networks that chase each other
WHAT = "its decoder"
FRAMED = 10  # images whose latents are in a frame: they do not move, and are not shown
SUBFOLDER = "sharp"  # of the VAE's own, unless another is named


@apart()
def sharpen(directory: str | Path, run_dir: str | Path | None = None,
            config: SharpenConfig | None = None, *, resume: bool = True) -> Run:  # fmt: skip
    """Train the decoder of the VAE in `directory` to draw sharp digits; leave a run in `run_dir`.

    Encoder, couplings and so the rate stay as they are. What the pixels' average cannot show, the
    adversarial term adds: the error in pixels rises. `run_dir`: default: `directory / "sharp"`.
    What `config` leaves open is decided as in `train`, and so is what happens to a run that is
    there already, to one that was cut off, and at an interrupt. Raises as `train` does, and
    `ValueError` for a VAE whose own training was cut off.
    """
    directory, config = as_path(directory), SharpenConfig() if config is None else config
    check_kind(config, "config", SharpenConfig)
    run_dir = directory / SUBFOLDER if run_dir is None else as_path(run_dir, "run_dir")
    vae = finished_vae(directory, "its decoder would be another")
    config = with_budget(config, images=folder.own_images(directory))
    if vae.config.latent_grid != 1:
        given = f"latent_grid={vae.config.latent_grid} leaves no blur to cure"
        raise ValueError(f"{given}: latent_grid=1 is expected")
    if vae.config.likelihood == "bernoulli":
        given = "likelihood='bernoulli' has no distortion to sharpen"
        raise ValueError(f"{given}: likelihood='calibrated' is expected")
    if folder.is_finished(run_dir) and not (run_dir / CHECKPOINT_NAME).is_file():
        saved = sharpened_with(folder.read_metrics(run_dir), directory, run_dir)
        check_same_settings(saved, config, f"run_dir={run_dir}, finished,")
        return Run.load(run_dir)
    folder.check_directory(run_dir)
    take_threads(config.threads, run_dir / CHECKPOINT_NAME)
    trainer = SharpenTrainer(vae, directory, run_dir, config)
    complete(trainer, resume)
    return trainer.run


def sharpened_with(metrics: dict, directory: Path, run_dir: Path) -> dict:
    """The settings in `run_dir`'s metrics; `ValueError` unless of the VAE in `directory` now."""
    if not isinstance(saved := metrics.get("sharpen"), dict):
        held = f"run_dir={str(run_dir)!r} holds a run whose decoder was not sharpened"
        raise ValueError(f"{held}: {REMEDY}")
    check_same_vae(metrics, directory, WHAT, REMEDY)
    return saved


class SharpenTrainer(RunLoop):
    """One training of a decoder. The method is `sharpening_step` in `vae/training/step.py`."""

    what = "sharpening of a decoder"

    def __init__(self, vae: VAE, source: Path, run_dir: Path, config: SharpenConfig):
        check_tracker(config.log_with)
        train_set, test_set, before, classes = digits_of(vae, source, config)
        super().__init__(config, run_dir, Machine(config.mixed_precision), *train_set, *test_set)
        self.schedule = plateau(config.warmup, config.fall, self.total_steps)
        self.source, self.result = source, vae.to(self.device).requires_grad_(False)
        self.images, self.labels = self.machine.hold(train_set.images), train_set.labels
        self.labels = self.labels.to(self.device)
        self.mean, self.std, _ = encode(vae, *train_set)
        count = before["config"].get("max_test_images")
        self.test_set = Digits(*(part[:count].to(self.device) for part in test_set))
        decoder = copy.deepcopy(vae.decoder).requires_grad_(True)
        with Seeded(config.seed):
            discriminator = ImageDiscriminator(classes, image_shape=vae.config.image_shape)
        self.unknown = discriminator.unknown
        rates = {"optimizer": config.learning_rate, "d_optimizer": config.discriminator_lr}
        networks = {"decoder": decoder, "discriminator": discriminator.to(self.device)}
        shared = self.prepare(networks, rates)
        vae.decoder = self.ema  # by which results are measured
        self.memory["perceptual"] = torch.zeros((), dtype=torch.float32, device=self.device)
        self.networks = step.Networks(*shared, self.load_lpips(), self.memory, config, self.machine)
        self.metrics |= {"config": before["config"], "sharpen": asdict(config)}
        self.metrics |= of_own_images(before)
        self.metrics["vae"] = vae_hash(source)
        self.keep_measured(before["test"])
        self.frames = Frames(self.test_set, FRAMED)
        self.note()
        self.noted = set(frame_steps(self.total_steps, config.frames))

    def optimizer_for(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), rate, BETAS)

    def select(self, index: Tensor) -> tuple[Tensor, ...]:
        """Images (B, *image_shape) in [-1, 1], labels (B,), mean and std of q (B, C, 1, 1)."""
        images = self.machine.fetch(self.images, index)
        return scale_images(images), self.labels[index], self.mean[index], self.std[index]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise of the posteriors, (n, C, 1, 1), and draws of N(0, I), (D, C, 1, 1)."""
        shape, drawn = self.result.config.latent_shape, round(self.config.drawn_share * n)
        both = gaussian(n + drawn, *shape, generator=generator)
        return both[:n], both[n:]

    @property
    def kind(self) -> bool:
        """Whether LPIPS counts in this step."""
        return self.step % self.config.lazy == 0

    def training_step(self, x: Tensor, labels: Tensor, mean: Tensor, std: Tensor, noise: Tensor,
                      drawn: Tensor) -> dict[str, Tensor]:  # fmt: skip
        vae, asked = self.result, labels[: len(drawn)]
        conditional = vae.config.num_classes > 0
        given = torch.cat([labels, asked]) if conditional else None
        told = asked if conditional else torch.full_like(asked, self.unknown)
        with torch.no_grad():
            token = vae.class_token(given, len(x) + len(drawn), values=False)
            parts = (None, None) if token is None else token.split([len(x), len(drawn)])
            coded = vae.decoder_input(mean + std * noise, parts[0])
            u = torch.cat([coded, vae.couplings(drawn, parts[1])])
        return step.sharpening_step(self.networks, self.step, x, labels, told, u, token)

    def check_saved(self, metrics: dict) -> None:
        """Raise `ValueError` for a checkpoint of another VAE or of other settings."""
        saved = sharpened_with(metrics, self.source, self.directory)
        super().check_saved(metrics | {"config": saved})
