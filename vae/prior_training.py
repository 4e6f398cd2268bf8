"""The training of a learned prior on the latents of a frozen VAE."""

import copy
import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from .config import check_same_settings, with_budget
from .data import Digits, load_digits, scale_images
from .figures import describe, plot_digits, save_png
from .files import FileError, read_json, sha256, write_atomically
from .model import MAP_SIZE, VAE, WEIGHTS_NAME
from .optimizer import Muon, one_cycle, update_average
from .options import check_options, option
from .prior import LatentPrior, PriorConfig
from .run import METRICS_NAME as RUN_METRICS_NAME
from .run import describe_environment, is_finished, peak_memory_mb, read_metrics
from .training import CHECKPOINT_SECONDS, check_directory, interrupts, lock, seeded_generator

METRICS_NAME = "prior_metrics.json"
PICTURE_NAME = "prior_samples.png"
CHECKPOINT_NAME = "prior_checkpoint.safetensors"
LOG_EVERY = 50  # steps between two looks at the loss; each look waits for the device
CHUNK = 500  # images that are encoded at once
TEST_IMAGES = 1000  # on which the loss is measured after each pass


BUDGETS = {  # what PriorTrainConfig leaves open; times are for two CPU cores
    "full": {"epochs": 16},  # 23 minutes; a few on a GPU
    "quick": {"epochs": 2},  # 4 minutes
    "tiny": {"epochs": 1, "max_train_images": 320},  # to see that it runs
}


@dataclass(frozen=True)
class PriorTrainConfig:
    """Everything that decides a prior's result, beside the VAE."""

    budgets: ClassVar = BUDGETS

    model: PriorConfig = field(default_factory=PriorConfig)
    epochs: int | None = option(None, "default: 16 (see --budget)", 1)
    max_train_images: int | None = option(None, "train on the first so many; default: all", 1)
    batch_size: int = option(64, "latents in a step", 1)
    learning_rate: float = option(6e-3, "Muon's, at the peak of the one-cycle schedule", 1e-9)
    weight_decay: float = option(1e-2, "decoupled, in proportion to the learning rate", 0)
    warmup: float = option(0.05, "share of the steps in which the learning rate rises", 0.01, 0.99)
    clip_norm: float = option(1.0, "a gradient longer than this is shortened to it", 1e-9)
    ema_decay: float = option(0.999, "of the average of the weights, the result", 0, 0.999999)
    label_dropout: float = option(0.1, "share of labels that are withheld, for guidance", 0, 1)
    seed: int = option(0, "of the weights, the order and the noise", 0, 2**32 - 1)

    def __post_init__(self):
        if isinstance(self.model, dict):  # as it comes from JSON
            object.__setattr__(self, "model", PriorConfig(**self.model))
        check_options(self)


def train_prior(
    directory: str | Path, config: PriorTrainConfig | None = None, *, resume: bool = True
) -> LatentPrior:
    """Train a prior for the VAE in `directory`; leave it and its metrics there, and return it.

    What `config` leaves open is the full budget. As `train` does, it loads a prior that is
    finished there with the same settings, and goes on with one that was cut off, unless `resume`
    is False. An interrupt (Ctrl-C) saves a checkpoint and raises `KeyboardInterrupt`. Raises,
    before any work, `ValueError` for a VAE without a 7x7 latent or whose training was cut off, for
    other settings or settings that do not fit, and `OSError` where nothing can be written. Raises
    `FloatingPointError` when the loss is no longer finite.
    """
    directory = check_directory(Path(directory))
    vae = VAE.from_pretrained(directory)
    if vae.config.latent_grid != MAP_SIZE:
        raise ValueError(
            f"latent_grid={vae.config.latent_grid} needs no learned prior: latent_grid={MAP_SIZE} "
            "is expected"
        )
    if not is_finished(directory):
        raise ValueError(
            f"directory={str(directory)!r} holds a VAE whose training was cut off: finish it first "
            "(--resume), or its latents would change under the prior"
        )
    config = with_budget(config or PriorTrainConfig(), "full")
    config = replace(config, model=replace(config.model, latent_size=vae.config.latent_size))
    metrics_path = directory / METRICS_NAME
    if metrics_path.is_file():
        saved = read_json(metrics_path, "a prior's metrics")
        if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
            raise FileError(f"{metrics_path} is not a prior's metrics: it has no config")
        place = f"directory={directory}, whose prior is finished,"
        check_same_vae(saved, directory, METRICS_NAME)
        check_same_settings(saved["config"], config, place, f"delete {METRICS_NAME}")
        return LatentPrior.from_pretrained(directory)
    with lock(directory, True):
        if not resume and (directory / CHECKPOINT_NAME).is_file():
            raise ValueError(
                f"directory={str(directory)!r} holds a training of a prior that was cut off: "
                f"resume it (resume=True, --resume), or delete {CHECKPOINT_NAME}"
            )
        return PriorTrainer(vae, directory, config).fit()


def check_same_vae(saved: dict, directory: Path, remedy: str) -> None:
    """Raise `ValueError` if the metrics of a prior tell of another VAE than the one there now."""
    if saved.get("vae") not in (None, vae_checksum(directory)):  # older ones do not tell
        raise ValueError(
            f"directory={str(directory)!r} holds a VAE that has changed since its prior was "
            f"trained: delete {remedy}"
        )


def vae_checksum(directory: Path) -> str:
    """The SHA-256 of the VAE's weights, in hexadecimal."""
    return sha256((directory / WEIGHTS_NAME).read_bytes())


class PriorTrainer:
    """One training of a prior."""

    def __init__(self, vae: VAE, directory: Path, config: PriorTrainConfig):
        self.directory, self.config = directory, config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.vae = vae.to(self.device)
        of_vae = read_metrics(directory)["config"]
        if not {"dataset", "data_root"} <= of_vae.keys():
            raise FileError(f"{directory / RUN_METRICS_NAME} does not name the data set")
        self.dataset = of_vae["dataset"]
        train_set, test_set = (
            load_digits(split, self.dataset, of_vae["data_root"]) for split in ("train", "test")
        )
        classes = int(train_set.labels.max()) + 1
        train_set = Digits(*(tensor[: config.max_train_images] for tensor in train_set))
        test_set, count = Digits(*(tensor[:TEST_IMAGES] for tensor in test_set)), len(train_set[0])
        if config.model.num_classes != classes:  # a class that is not there would not be learned
            raise ValueError(
                f"num_classes={config.model.num_classes} is not allowed: dataset="
                f"{self.dataset!r} has {classes} classes"
            )
        if config.batch_size > count:
            raise ValueError(
                f"batch_size={config.batch_size} is not allowed: at most the {count} images"
            )
        self.train_set, self.test_set = self.encode(*train_set), self.encode(*test_set)
        self.steps_per_epoch = count // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        torch.manual_seed(config.seed)
        self.prior = LatentPrior(config.model).to(self.device)
        mean, std, _ = self.train_set
        self.prior.mean.copy_(mean.mean((0, 2, 3))[:, None, None])
        variance = (mean - self.prior.mean).square() + std.square()
        self.prior.std.copy_(variance.mean((0, 2, 3)).sqrt()[:, None, None])
        self.ema = copy.deepcopy(self.prior).eval().requires_grad_(False)
        self.optimizer = Muon(self.prior, config.learning_rate, config.weight_decay)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = one_cycle(config.warmup, self.total_steps)
        self.order, self.order_epoch = torch.zeros(0), -1
        self.step, self.seconds = 0, 0.0
        self.recent: list[Tensor] = []
        self.metrics = {
            "config": asdict(config),
            "environment": describe_environment(self.device, "no", 1),
            "vae": vae_checksum(directory),
            "parameters": sum(p.numel() for p in self.prior.parameters()),
            "history": {"train": [], "test": []},
        }

    @torch.no_grad()
    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and standard deviation of each image's posterior, (N, C, 7, 7), and its label."""
        means, stds = [], []
        for x, given in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
            given = given.to(self.device) if self.vae.config.num_classes else None
            posterior = self.vae.encode(scale_images(x.to(self.device)), given)
            means.append(posterior.mean)
            stds.append(posterior.std)
        return torch.cat(means), torch.cat(stds), labels.to(self.device)

    def fit(self) -> LatentPrior:
        """Train to the end, with checkpoints on the way; returns the averaged weights."""
        path = self.directory / CHECKPOINT_NAME
        if path.is_file():
            self.restore(path)
        saved = clock = time.perf_counter()
        options = {"initial": self.step, "total": self.total_steps, "unit": "step"}
        with interrupts(1) as asked, tqdm(**options, desc="prior") as bar:
            while self.step < self.total_steps:
                self.optimize()
                bar.update()
                at_end = self.step % self.steps_per_epoch == 0
                if at_end or len(self.recent) == LOG_EVERY:
                    self.log_loss(bar)
                if at_end:
                    self.measure()
                now = time.perf_counter()
                self.seconds += now - clock
                if asked or now - saved > CHECKPOINT_SECONDS:
                    self.save(path)
                    saved = now
                if asked:
                    raise KeyboardInterrupt
                clock = time.perf_counter()
        self.metrics |= {"seconds": self.seconds, "peak_memory_mb": peak_memory_mb(self.device)}
        text = json.dumps(self.metrics, indent=1) + "\n"
        self.ema.save_pretrained(self.directory)
        name = describe(self.vae.config, self.dataset)
        figure = plot_digits(self.vae, name, self.ema)
        save_png(self.directory / PICTURE_NAME, figure)
        write_atomically(self.directory / METRICS_NAME, lambda file: file.write_text(text))
        path.unlink(missing_ok=True)
        return self.ema.cpu()

    def optimize(self) -> None:
        """One step on the next batch. Order and noise depend on the seed and the step alone."""
        config = self.config
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            generator = seeded_generator(config.seed, 0, epoch)
            self.order = torch.randperm(len(self.train_set[0]), generator=generator)
            self.order_epoch = epoch
        index = self.order[position * config.batch_size :][: config.batch_size].to(self.device)
        generator = seeded_generator(config.seed, 1, self.step)
        loss = self.loss(self.prior, *(t[index] for t in self.train_set), generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prior.parameters(), config.clip_norm)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.schedule(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_average(self.ema, self.prior, config.ema_decay, self.step)
        self.recent.append(loss.detach())
        self.step += 1

    def loss(
        self,
        prior: LatentPrior,
        mean: Tensor,
        std: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss on draws of posteriors (B, C, 7, 7), at times that favour the middle.

        There the velocity is hardest to tell; times are the logistic function of normal draws
        (Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1). Some labels are
        withheld, so that the network learns the velocity without one too.
        """
        draw, noise = torch.randn(2, *mean.shape, generator=generator).to(self.device)
        t = torch.randn(len(mean), generator=generator).sigmoid().to(self.device)
        withheld = torch.rand(len(mean), generator=generator) < self.config.label_dropout
        labels = labels.masked_fill(withheld.to(self.device), prior.config.num_classes)
        return prior.loss(mean + std * draw, noise, t, labels)

    def log_loss(self, bar: tqdm) -> None:
        """Average the losses since the last look into the history; stop if one is not finite."""
        loss = torch.stack(self.recent).mean().item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss} by step {self.step}; the last checkpoint is in {self.directory}. "
                "Try a lower learning_rate."
            )
        epoch = self.step / self.steps_per_epoch
        self.metrics["history"]["train"].append(
            {"step": self.step, "epoch": epoch, "loss": loss, "seconds": self.seconds}
        )
        bar.set_postfix(loss=f"{loss:.4f}")
        self.recent.clear()

    @torch.no_grad()
    def measure(self) -> None:
        """The averaged weights' loss on test digits, with the same noise every time."""
        parts = zip(*(tensor.split(CHUNK) for tensor in self.test_set), strict=True)
        generator = seeded_generator(self.config.seed, 2)
        losses = [self.loss(self.ema, *part, generator) for part in parts]
        row = {"step": self.step, "epoch": self.step / self.steps_per_epoch}
        self.metrics["history"]["test"].append(row | {"loss": torch.stack(losses).mean().item()})

    def save(self, path: Path) -> None:
        """Write a checkpoint: everything that `restore` needs to go on from this step."""
        parts = {"prior": self.prior.state_dict(), "ema": self.ema.state_dict()}
        parts["optimizer"] = optimizer_tensors(self.optimizer)
        tensors = {f"{part}.{k}": t for part, named in parts.items() for k, t in named.items()}
        tensors["recent"] = torch.stack(self.recent) if self.recent else torch.zeros(0)
        state = {"step": self.step, "metrics": self.metrics, "training_seconds": self.seconds}
        save_checkpoint(path, tensors, state)

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint. Raises `ValueError` for other settings or a damaged file."""
        tensors, state = load_checkpoint(path)
        place = f"directory={self.directory}, whose prior was cut off,"
        saved = state["metrics"]
        check_same_vae(saved, self.directory, CHECKPOINT_NAME)
        check_same_settings(saved["config"], self.config, place, f"delete {CHECKPOINT_NAME}")
        if state["step"] > self.total_steps:
            raise FileError(f"{path}: step {state['step']} of {self.total_steps} is not possible")
        try:
            self.prior.load_state_dict(under("prior", tensors))
            self.ema.load_state_dict(under("ema", tensors))
            restore_optimizer(self.optimizer, under("optimizer", tensors))
            self.recent = list(tensors["recent"].to(self.device))
        except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
            raise FileError(f"{path} does not fit this training: {error!r}") from error
        self.metrics, self.step = state["metrics"], state["step"]
        self.seconds = state["training_seconds"]
