"""The latents of a VAE whose weights stay: encoding images, fitting couplings, training a prior."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .. import step
from ..checks import check_classes
from ..data import BATCH, Digits, batches, gaussian, scale_images, uniform
from ..metrics import Bar
from ..model import VAE
from ..pretrained import FileError, as_path, read_json, sha256, write_json
from ..prior import LatentPrior, PriorConfig
from ..settings import check_instance
from . import figures, folder, loop
from .config import PriorTrainConfig, TrainConfig, check_same_settings, with_budget
from .datasets import load_digits
from .graphs import StepGraphs, can_replay
from .machine import Machine, isolated, seeded, seeded_generator, to_device
from .optimizer import Muon, one_cycle
from .run import draw

WARMUP = 0.05  # share of the couplings' steps in which the learning rate rises
WEIGHT_DECAY = 0.2  # of the couplings; with less they would learn the training codes by heart
TEST_IMAGES = 1000  # on which a prior's loss is measured after each epoch
REMEDY = f"delete {folder.PRIOR_METRICS_NAME}, prior.json and prior.safetensors"


def finished_vae(directory: Path, remedy: str) -> VAE:
    """The VAE in `directory`. Raises `ValueError`, with a `remedy`, if its training was cut off."""
    vae = VAE.from_pretrained(directory)
    if not folder.is_finished(directory):
        held = f"directory={str(directory)!r} holds a VAE whose training was cut off"
        raise ValueError(f"{held}: finish it first (--resume), or {remedy}")
    return vae


def vae_facts(directory: Path, metrics: dict) -> dict:
    """A second training's record of its VAE: the SHA-256 of its weights, and its own pictures."""
    own = {name: metrics[name] for name in ("classes", "train_images") if name in metrics}
    return own | {"vae": sha256((directory / VAE.weights_name).read_bytes())}


def check_same_vae(saved: dict, directory: Path, trained: str, remedy: str) -> None:
    """Raise `ValueError` if the metrics `saved` by a second training are of another VAE."""
    if saved.get("vae") != vae_facts(directory, {})["vae"]:
        held = f"directory={str(directory)!r} holds a VAE that has changed"
        raise ValueError(f"{held} since {trained} was trained: {remedy}")


def digits_of(vae: VAE, directory: Path, config) -> tuple[Digits, Digits, dict, int]:
    """Images of the VAE in `directory` to train and to test on, its metrics, number of classes.

    Raises `ValueError` for other data than it saw, and `FileError` if no data set is named.
    """
    metrics = folder.read_metrics(directory)
    if metrics["config"].get("dataset") is None:
        raise FileError(f"{directory / folder.METRICS_NAME} does not name the data set")
    train_set, test_set, here = data_of(metrics["config"], vae, config.data_root)
    owner, remedy = f"directory={str(directory)!r}, whose VAE is trained,", "put the data back"
    loop.check_same_data(metrics.setdefault("data", here), here, owner,
                         f"{remedy}, or train another VAE")  # fmt: skip
    few = Digits(*(part[: config.max_train_images] for part in train_set))
    return few, test_set, metrics, int(train_set.labels.max()) + 1


def data_of(config: dict, vae: VAE, data_root: str | None = None) -> tuple[Digits, Digits, str]:
    """Both splits of a VAE's data set as they are now, and the checksum of what a training sees.

    `config`: the training's, as a dict. `data_root`: None: the config's.
    """
    root, sets, seen = data_root or config.get("data_root", "data"), [], []
    channels, size, _ = vae.config.image_shape
    for split in ("train", "test"):
        sets.append(load_digits(split, config["dataset"], root, size=size, channels=channels))
        seen += [part[: config.get(f"max_{split}_images")] for part in sets[-1]]
    return *sets, loop.checksum(seen)


@torch.no_grad()
def encode(vae: VAE, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of each image's posterior's Gaussian, (N, C, G, G), and its label.

    For a Bernoulli likelihood, each image is binarised once.
    """
    labels, generator = labels.to(vae.device), torch.Generator().manual_seed(0)
    found = []
    for x, given in batches(BATCH, images, labels if vae.config.num_classes else None):
        x = vae.observed(scale_images(x.to(vae.device)), generator)
        found.append(vae.encode(x, given).gaussian)
    mean = torch.cat([q.mean.contiguous() for q in found])  # the layout decides a sum's last bit
    return mean, torch.cat([q.std for q in found]), labels


def fit_couplings(vae: VAE, digits: Digits, config: TrainConfig, steps: int) -> float:
    """Fit the couplings of a coupled posterior to the codes of `digits`; returns the seconds.

    With fixed encoder and decoder the ELBO depends on the couplings through E_q(u|x) [log p(u)]
    alone, the likelihood of codes under the map. These steps raise it, each on samples for CODES
    images. Before, its gradient was lost in the noise of the reconstruction's. (A density that is
    fitted afterwards: Ghosh et al., "From Variational to Deterministic Autoencoders", 2020.)
    """
    started, couplings = time.perf_counter(), vae.couplings.requires_grad_(True)
    mean, std, labels = encode(vae, *digits)
    optimizer = Muon(couplings, config.learning_rate, WEIGHT_DECAY)
    terms, replay = {"marginal": torch.zeros(())}, can_replay(config.cuda_graphs, vae.device)
    graphs = StepGraphs([couplings], [optimizer], vae.device) if replay else None
    schedule = LambdaLR(optimizer, one_cycle(WARMUP, steps))

    def fit(u: Tensor, token: Tensor | None) -> dict[str, Tensor]:
        nll = couplings.marginal_nll(u, token).mean()
        optimizer.zero_grad()
        nll.backward()
        nn.utils.clip_grad_norm_(couplings.parameters(), config.clip_norm)
        optimizer.step()
        return {"marginal": nll.detach()}

    for number in Bar(range(steps), desc="couplings", unit="step"):
        generator = seeded_generator(config.seed, 2, number)
        chosen = torch.randint(len(mean), (step.CODES,), generator=generator)
        noise = gaussian(step.CODES, *mean.shape[1:], generator=generator)
        chosen, noise = (to_device(tensor, vae.device) for tensor in (chosen, noise))
        with torch.no_grad():
            given = labels[chosen] if vae.config.num_classes else None
            token = vae.class_token(given, step.CODES, values=False)
            codes = mean[chosen] + std[chosen] * noise, token
        terms = graphs("fit", fit, codes) if graphs else fit(*codes)
        schedule.step()
    couplings.requires_grad_(False)
    if not (nll := terms["marginal"]).isfinite():
        raise FloatingPointError(f"marginal is {nll.item()} after {steps} steps of the couplings")
    return time.perf_counter() - started


def train_prior(directory: str | Path, config: PriorTrainConfig | None = None, *,
                resume: bool = True) -> LatentPrior:  # fmt: skip
    """Train a prior for the VAE in `directory`; leave it and its metrics there, and return it.

    The default budget is the full one. As in `train`, a finished prior of the same settings is
    loaded, and one that was cut off goes on, unless `resume` is False. An interrupt (Ctrl-C) saves
    a checkpoint and raises `KeyboardInterrupt`. Raises, before any work, `ValueError` for a VAE
    with a global latent or whose training was cut off and for settings that do not fit, and
    `OSError` where nothing can be written. Raises `FloatingPointError` as `train` does.
    """
    directory, config = as_path(directory), PriorTrainConfig() if config is None else config
    check_instance(config, "config", PriorTrainConfig)
    vae = finished_vae(directory, "its latents would change under the prior")
    size, grid, _ = vae.config.latent_shape
    if grid == 1:
        needed = f"latent_grid={vae.config.map_size}"
        raise ValueError(f"latent_grid=1 needs no learned prior: {needed} is expected")
    config = with_budget(config, "full", folder.own_images(directory))
    config = replace(config, model=replace(config.model, latent_size=size, latent_grid=grid))
    checkpoint = directory / folder.PRIOR_CHECKPOINT_NAME
    path = directory / folder.PRIOR_METRICS_NAME
    if path.is_file() and not checkpoint.is_file():
        saved = read_json(path, "a prior's metrics")
        if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
            raise FileError(f"{path} is not a prior's metrics: it has no config")
        check_same_vae(saved, directory, "its prior", REMEDY)
        owner = f"directory={directory}, whose prior is finished,"
        check_same_settings(saved["config"], config, owner, REMEDY)
        digits_of(vae, directory, config)  # raises for other data
        return LatentPrior.from_pretrained(directory)
    folder.check_directory(directory)
    with isolated(config.threads, checkpoint):
        if not loop.train(training := PriorTrainer(vae, directory, config), resume):
            raise KeyboardInterrupt
    return training.ema.cpu()


class PriorTrainer(loop.Training):
    """One training of a prior, by `prior_step` in `vae/step.py`. It is its own recorder."""

    def __init__(self, vae: VAE, directory: Path, config: PriorTrainConfig):
        train_set, test_set, metrics, classes = digits_of(vae, directory, config)
        self.dataset, machine = metrics["config"]["dataset"], Machine(config.mixed_precision)
        if config.model.num_classes == PriorConfig.num_classes:
            config = replace(config, model=replace(config.model, num_classes=classes))
        these = f"{len(train_set.labels):,} train images of dataset={self.dataset!r}"
        check_classes(train_set.labels, config.model.num_classes, these)
        known = test_set.labels < config.model.num_classes  # the test may have classes of its own
        test_set = Digits(*(part[known] for part in test_set))
        with seeded(config.seed):
            self.prior = LatentPrior(config.model)
        self.vae, self.prior = vae.to(machine.device), self.prior.to(machine.device)
        self.train_set = encode(self.vae, *train_set)
        self.test_set = encode(self.vae, *(part[:TEST_IMAGES] for part in test_set))
        self.prior.standardise(*self.train_set[:2])
        optimizer = Muon(self.prior, config.learning_rate, config.weight_decay)
        super().__init__(
            config, directory, machine, (*train_set, *test_set), {"prior": self.prior},
            {"prior_optimizer": optimizer}, nn.Module(), "training of a prior",
            folder.PRIOR_CHECKPOINT_NAME, f"delete {folder.PRIOR_CHECKPOINT_NAME}",
        )  # fmt: skip
        self.schedule, self.recorder = one_cycle(config.warmup, self.total_steps), self
        self.metrics |= vae_facts(directory, metrics)
        self.metrics["parameters"] = sum(p.numel() for p in self.prior.parameters())

    def select(self, index: Tensor) -> tuple[Tensor, ...]:
        """Mean and standard deviation of posteriors (B, C, G, G), and labels (B,)."""
        return tuple(tensor[index] for tensor in self.train_set)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise of the posterior and of the flow, (n, C, G, G), times, and withheld labels.

        Times favour the middle, where the velocity is hardest to learn: logistic functions of
        normal samples (Esser et al., "Scaling Rectified Flow Transformers", 2024, section 3.1).
        """
        shape = 2, n, *self.vae.config.latent_shape
        posterior_noise, noise = gaussian(*shape, generator=generator)
        times = gaussian(n, generator=generator).sigmoid()
        withheld = uniform(n, generator=generator) < self.config.label_dropout
        return posterior_noise, noise, times, withheld

    def step_on(self, *batch: Tensor) -> dict[str, Tensor]:
        return step.prior_step(self, *batch)

    def check_saved(self, metrics: dict) -> None:
        check_same_vae(metrics, self.directory, "its prior", self.remedy)
        super().check_saved(metrics)

    @torch.no_grad()
    def measure(self) -> None:
        """Measure the averaged weights' loss on test images, with the same noise every time."""
        losses, generator = [], seeded_generator(self.config.seed, 2)
        for mean, std, labels in batches(BATCH, *self.test_set):
            noise = (part.to(self.device) for part in self.draw(len(mean), generator))
            losses.append(step.flow_loss(self.ema, mean, std, labels, *noise))
        self.add_row("test", {"loss": torch.stack(losses).mean().item()} if losses else {})

    def finish(self, started: float) -> None:
        """Write the averaged weights, the metrics, with which it is finished, and a picture."""
        self.metrics["seconds"] = self.seconds
        self.ema.save_pretrained(self.directory)
        write_json(self.directory / folder.PRIOR_METRICS_NAME, self.metrics)
        name = figures.describe(self.vae.config, self.dataset)
        names = self.metrics.get("classes", ())
        make = partial(figures.plot_digits, self.vae, name, self.ema, names=names)
        draw(self.directory / folder.PRIOR_PICTURE_NAME, make)

    def tensors(self) -> dict[str, Tensor]:
        return {}  # a prior has no frames

    def restore(self, tensors: dict[str, Tensor]) -> None:
        pass
