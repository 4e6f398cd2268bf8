"""The training of a learned prior on the latents of a frozen VAE."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_show import figures
from vae_show.run import draw
from vae_store import folder
from vae_store.checkpoint import PRIOR_CHECKPOINT_NAME
from vae_store.environment import peak_memory_mb, take_threads
from vae_store.files import FileError, as_path, read_json, write_json
from vae_store.settings import check_kind, check_same_settings

from ..checks import check_classes, gaussian
from ..data import BATCH, batches
from ..model import VAE
from ..prior import LatentPrior, PriorConfig
from . import step
from .config import PriorTrainConfig, with_budget
from .isolation import Seeded, apart
from .latents import check_same_vae, digits_of, encode, finished_vae, of_own_images, vae_hash
from .loop import Loop, complete
from .machine import Machine, check_tracker, seeded_generator

REMEDY = f"delete {folder.PRIOR_METRICS_NAME}, prior.json and prior.safetensors"
WHAT = "its prior"
TEST_IMAGES = 1000  # on which the loss is measured after each pass


@apart()
def train_prior(
    directory: str | Path, config: PriorTrainConfig | None = None, *, resume: bool = True
) -> LatentPrior:
    """Train a prior for the VAE in `directory`; leave it and its metrics there, and return it.

    What `config` leaves open is the full budget. As in `train`, a prior that is finished there with
    the same settings is loaded, and one that was cut off goes on, unless `resume` is False. An
    interrupt (Ctrl-C) saves a checkpoint and raises `KeyboardInterrupt`. Raises, before any work,
    `ValueError` for a VAE with a global latent or whose training was cut off and for settings that
    do not fit, and `OSError` where nothing can be written. Raises `FloatingPointError` as `train`.
    """
    directory, config = as_path(directory), PriorTrainConfig() if config is None else config
    check_kind(config, "config", PriorTrainConfig)
    vae = finished_vae(directory, "its latents would change under the prior")
    size, grid, _ = vae.config.latent_shape
    if grid == 1:
        raise ValueError(
            f"latent_grid=1 needs no learned prior: latent_grid={vae.config.map_size} is expected"
        )
    config = with_budget(config, "full", folder.own_images(directory))
    config = replace(config, model=replace(config.model, latent_size=size, latent_grid=grid))
    finished = not (directory / PRIOR_CHECKPOINT_NAME).is_file()
    if finished and (path := directory / folder.PRIOR_METRICS_NAME).is_file():
        saved = read_json(path, "a prior's metrics")
        if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
            raise FileError(f"{path} is not a prior's metrics: it has no config")
        check_same_vae(saved, directory, WHAT, REMEDY)
        place = f"directory={directory}, whose prior is finished,"
        check_same_settings(saved["config"], config, place, REMEDY)
        return LatentPrior.from_pretrained(directory)
    folder.check_directory(directory)
    take_threads(config.threads, directory / PRIOR_CHECKPOINT_NAME)
    trainer = PriorTrainer(vae, directory, config)
    if not complete(trainer, resume):
        raise KeyboardInterrupt
    return trainer.ema.cpu()


class PriorTrainer(Loop):
    """One training of a prior. The method is `prior_step` in `vae/training/step.py`."""

    what, remedy = "training of a prior", f"delete {PRIOR_CHECKPOINT_NAME}"
    checkpoint_name = PRIOR_CHECKPOINT_NAME

    def __init__(self, vae: VAE, directory: Path, config: PriorTrainConfig):
        check_tracker(config.log_with)
        train_set, test_set, metrics, classes = digits_of(vae, directory, config)
        self.dataset = metrics["config"]["dataset"]
        if config.model.num_classes == PriorConfig.num_classes:
            config = replace(config, model=replace(config.model, num_classes=classes))
        for split, labels in (("train", train_set.labels), ("test", test_set.labels)):
            these = f"{len(labels):,} {split} images of dataset={self.dataset!r}"
            check_classes(labels, config.model.num_classes, these, every=split == "train")
        super().__init__(config, directory, Machine(config.mixed_precision), *train_set, *test_set)
        self.vae = vae.to(self.device)
        self.train_set = encode(self.vae, *train_set)
        self.test_set = encode(self.vae, *(part[:TEST_IMAGES] for part in test_set))
        with Seeded(config.seed):
            prior = LatentPrior(config.model)
        self.prior = prior.to(self.device)
        mean, std, _ = self.train_set  # the prior gets those of z ~ q(z|x), for each channel
        self.prior.mean.copy_(mean.mean((0, 2, 3))[:, None, None])
        variance = (mean - self.prior.mean).square() + std.square()
        self.prior.std.copy_(variance.mean((0, 2, 3)).sqrt()[:, None, None])
        shared = self.prepare({"prior": self.prior}, {"optimizer": config.learning_rate})
        self.network, self.optimizer = shared
        self.metrics["vae"] = vae_hash(directory)
        self.metrics |= of_own_images(metrics)
        self.metrics["parameters"] = sum(p.numel() for p in self.prior.parameters())

    def select(self, index: Tensor) -> tuple[Tensor, ...]:
        """Mean and standard deviation of posteriors (B, C, G, G), and labels (B,)."""
        return tuple(tensor[index] for tensor in self.train_set)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise of the posterior and of the flow, (n, C, G, G), times, and what label to withhold.

        Times favour the middle, where the velocity is hardest to tell: logistic functions of normal
        draws (Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1).
        """
        shape = 2, n, *self.vae.config.latent_shape
        of_posterior, noise = gaussian(*shape, generator=generator)
        t = gaussian(n, generator=generator).sigmoid()
        chance = torch.rand(n, generator=generator, dtype=torch.float32, device="cpu")
        withheld = chance < self.config.label_dropout
        return of_posterior, noise, t, withheld

    def training_step(self, *batch: Tensor) -> dict[str, Tensor]:
        return step.prior_step(self.network, self.optimizer, self.config, self.machine, *batch)

    @torch.no_grad()
    def measure(self) -> None:
        """The averaged weights' loss on test digits, with the same noise every time."""
        generator, losses = seeded_generator(self.config.seed, 2), []
        for mean, std, labels in batches(BATCH, *self.test_set):
            drawn = (part.to(self.device) for part in self.draw(len(mean), generator))
            losses.append(step.flow_loss(self.ema, mean, std, labels, *drawn))
        loss = torch.stack(losses).mean().item()
        self.keep("test", self.place() | {"loss": loss})

    def finish(self, started: float) -> None:
        """Write the averaged weights, the metrics, which make it finished, and a picture."""
        memory = peak_memory_mb(self.device)
        self.metrics |= {"seconds": self.log.seconds, "peak_memory_mb": memory}
        self.ema.save_pretrained(self.directory)
        write_json(self.directory / folder.PRIOR_METRICS_NAME, self.metrics)
        name = figures.describe(self.vae.config, self.dataset)
        names = self.metrics.get("classes", ())
        make = partial(figures.plot_digits, self.vae, name, self.ema, names=names)
        draw(self.directory / folder.PRIOR_PICTURE_NAME, make)

    def check_saved(self, metrics: dict) -> None:
        """Raise `ValueError` for a checkpoint of another VAE or of other settings."""
        check_same_vae(metrics, self.directory, WHAT, self.remedy)
        super().check_saved(metrics)
