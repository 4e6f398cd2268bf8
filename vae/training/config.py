"""The settings of the trainings, and their budgets."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from vae_store.pictures import count_own, dataset_name, is_own, same_dataset
from vae_store.settings import check_kind, check_options, from_saved, option

from ..data import DATASETS, OWN, check_dataset
from ..model import VAEConfig
from ..perceptual import VARIANTS
from ..prior import PriorConfig

PRECISIONS = ("auto", "no", "bf16", "fp16")
MNIST_IMAGES = 60_000  # over which the budgets' epochs are passes
TRACKERS = ("tensorboard", "wandb", "trackio", "aim", "comet_ml", "mlflow", "clearml", "dvclive",
            "swanlab")  # fmt: skip
BUDGETS = {  # what TrainConfig leaves open; times are for two CPU cores
    "full": {},  # 20 minutes; a few on a GPU
    "quick": {"epochs": 1, "max_train_images": 24_000, "early_evaluations": 2, "lpips_images": 100,
              "frames": 18, "projected_images": 500},  # 2 minutes, most of which are training
    "tiny": {"epochs": 1, "max_train_images": 320, "max_test_images": 100},  # to see that it runs
}  # fmt: skip
LOOKS = {"early_evaluations": 5, "lpips_images": 1000, "frames": 36, "projected_images": 2000}
RECIPES = {  # what else TrainConfig leaves open: on 1x1, where `sharpen` adds the terms, or not
    "map": {"epochs": 3, "learning_rate": 6e-3, "w_perceptual": 0.05, "w_adversarial": 0.1},
    "vector": {"epochs": 6, "learning_rate": 3e-3, "w_perceptual": 0.0, "w_adversarial": 0.0},
}
PRIOR_BUDGETS = {  # what PriorTrainConfig leaves open
    "full": {"epochs": 16},  # 23 minutes; a few on a GPU
    "quick": {"epochs": 2},  # 4 minutes
    "tiny": {"epochs": 1, "max_train_images": 320},
}
SHARPEN_BUDGETS = {  # what SharpenConfig leaves open
    "full": {"epochs": 3},  # 12 minutes; a few on a GPU
    "quick": {"epochs": 1, "max_train_images": 24_000},  # 2 minutes
    "tiny": {"epochs": 1, "max_train_images": 320},
}


def _take_model(config, kind: type) -> None:
    if isinstance(config.model, dict):  # as it comes from JSON
        object.__setattr__(config, "model", from_saved(kind, config.model))
    check_kind(config.model, "model", kind)


def tracker():
    """Where the curves go besides the run's folder. Its package has to be installed."""
    help = "also send curves and reconstructions to a tracker"
    return option("no", help, choices=("no", *TRACKERS), decides=False)


def threads():
    """How many CPU threads a training computes with: the last bits of its result alone differ."""
    help = "CPU threads that PyTorch computes with; default: as it chose, or as before the cut"
    return option(None, help, 1, 1024, kind=int, decides=False)


def cuda_graphs():
    """Whether a CUDA GPU replays a step as one graph: the last bits of the result alone differ."""
    help = "replay steps as CUDA graphs: several times as fast, on one GPU, not in fp16"
    return option(False, help, decides=False)


def left_open(help: str, low: float = 1, kind: type = int, high: float | None = None):
    """A number that is None until `with_budget` decides it."""
    return option(None, help, low, high, kind=kind)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result. A loss term whose weight is 0 is not computed."""

    budgets: ClassVar = BUDGETS
    before: ClassVar = LOOKS  # of a file
    model: VAEConfig = field(default_factory=VAEConfig)
    dataset: str = option("mnist", f"the images: {', '.join(DATASETS)}, or {OWN}",
                          alike=same_dataset)  # fmt: skip
    data_root: str = option("data", "folder of what torchvision downloads", decides=False)
    max_train_images: int | None = left_open("train on the first so many; default: all")
    max_test_images: int | None = left_open("evaluate on the first so many; default: all", 10)
    epochs: int | None = left_open(
        "default: 3, on a 1x1 grid 6; without a GPU 1, of 24,000 images (see --budget)"
    )
    batch_size: int = option(32, "images in a step, over all processes", 1)
    learning_rate: float | None = left_open(
        "Muon's, at the one-cycle schedule's peak; default: 6e-3, or 3e-3 on 1x1", 1e-9, float
    )
    weight_decay: float = option(1e-2, "decoupled, in proportion to the learning rate", 0)
    warmup: float = option(0.15, "share of the steps in which the learning rate rises", 0.01, 0.99)
    clip_norm: float = option(5.0, "a gradient longer than this is shortened to it", 1e-9)
    ema_decay: float = option(0.998, "of the average of the weights, the result", 0, 0.999999)
    w_mse: float = option(1.0, "weight of the MSE in the distortion", 0)
    w_perceptual: float | None = left_open(
        "weight of LPIPS in the distortion; default: 0.05, on a 1x1 grid 0", 0, float
    )
    perceptual_share: float = option(0.125, "share of a batch that LPIPS sees", 1e-9, 1)
    lpips_variant: str = option("shift_tolerant", "weights of LPIPS", choices=VARIANTS)
    beta: float = option(1.0, "weight of the KL: 1 is the true ELBO; less is sharper, at a rate", 0)
    w_marginal: float = option(
        10.0, "of the marginal KL's gradient at the couplings, beside beta", 0
    )
    coupling_steps: float = option(
        1.5,
        "steps at the end that fit a coupled posterior's couplings alone, times the others",
        0,
        100,
    )
    w_adversarial: float | None = left_open(
        "of the generator's loss, beside its adaptive one; default: 0.1, on a 1x1 grid 0", 0, float
    )
    adversarial_start: float = option(0.25, "share of the steps before the discriminator", 0, 1)
    discriminator_lr: float = option(1e-2, "learning rate of the discriminator", 1e-9)
    discriminator_accuracy: float = option(0.75, "to which the R1 penalty steers it", 0.5, 1)
    lazy: int = option(4, "LPIPS and R1 count every so many-th step, so many times", 1)
    mixed_precision: str = option("auto", "of the model", choices=PRECISIONS)
    early_evaluations: int | None = left_open(
        "in the first epoch, besides the one at its end; default: 5, or quick 2", 0, high=100
    )
    lpips_images: int | None = left_open(
        "test images on which LPIPS is measured; default: 1000, or quick 100", 0
    )
    frames: int | None = left_open(
        "of the GIFs, close together at the start; default: 36, or quick 18", high=200
    )
    projected_images: int | None = left_open(
        "test images in latent.gif; default: 2000, or quick 500", 10
    )
    seed: int = option(0, "of the weights, the order and the sampling noise", 0, 2**32 - 1)
    threads: int | None = threads()
    cuda_graphs: bool = cuda_graphs()
    log_with: str = tracker()

    def __post_init__(self):
        _take_model(self, VAEConfig)
        check_options(self)
        check_dataset(self.dataset)
        if not self.model.variational and self.beta:
            given = f"beta={self.beta} is not allowed with variational=False"
            raise ValueError(f"{given}, which has no KL: beta=0")
        if self.model.likelihood == "bernoulli" and (self.w_perceptual or self.w_mse != 1):
            given = f"w_mse={self.w_mse}, w_perceptual={self.w_perceptual} is not allowed with"
            raise ValueError(f"{given} likelihood='bernoulli', which has no distortion: 1.0, 0.0")
        check_distortion(self)

    def fitted(self, images: Tensor) -> "TrainConfig":
        """The config with a model for such images, (N, C, H, W), in what that leaves open."""
        return replace(self, model=self.model.fitted(*images.shape[1:3]))


@dataclass(frozen=True)
class PriorTrainConfig:
    """Everything that decides a prior's result, beside the VAE."""

    budgets: ClassVar = PRIOR_BUDGETS
    model: PriorConfig = field(default_factory=PriorConfig)
    epochs: int | None = left_open("default: 16 (see --budget)")
    max_train_images: int | None = left_open("train on the first so many; default: all")
    data_root: str | None = option(None, "folder of the data; default: the VAE's", kind=str,
                                   decides=False)  # fmt: skip
    batch_size: int = option(64, "latents in a step, over all processes", 1)
    learning_rate: float = option(6e-3, "Muon's, at the peak of the one-cycle schedule", 1e-9)
    label_dropout: float = option(0.1, "share of labels that are withheld, for guidance", 0, 1)
    weight_decay: float = option(1e-2, "decoupled, in proportion to the learning rate", 0)
    mixed_precision: str = option("no", "of the prior", choices=PRECISIONS)
    warmup: float = option(0.05, "share of the steps in which the learning rate rises", 0.01, 0.99)
    clip_norm: float = option(1.0, "a gradient longer than this is shortened to it", 1e-9)
    ema_decay: float = option(0.999, "of the average of the weights, the result", 0, 0.999999)
    seed: int = option(0, "of the weights, the order and the noise", 0, 2**32 - 1)
    threads: int | None = threads()
    cuda_graphs: bool = cuda_graphs()
    log_with: str = tracker()

    def __post_init__(self):
        _take_model(self, PriorConfig)
        check_options(self)


@dataclass(frozen=True)
class SharpenConfig:
    """Everything that decides how a decoder is sharpened, beside the VAE."""

    budgets: ClassVar = SHARPEN_BUDGETS
    epochs: int | None = left_open("default: 3; without a GPU 1, of 24,000 images (see --budget)")
    max_train_images: int | None = left_open("train on the first so many; default: all")
    data_root: str | None = option(None, "folder of the data; default: the VAE's", kind=str,
                                   decides=False)  # fmt: skip
    batch_size: int = option(64, "images in a step, over all processes", 1)
    learning_rate: float = option(6e-4, "Adam's, between its rise and its fall", 1e-9)
    discriminator_lr: float = option(1e-3, "learning rate of the discriminator", 1e-9)
    warmup: float = option(0.05, "share of the steps in which the learning rate rises", 0.01, 0.99)
    fall: float = option(0.33, "share of the steps, the last, in which it falls", 0.01, 0.99)
    clip_norm: float = option(5.0, "a gradient longer than this is shortened to it", 1e-9)
    ema_decay: float = option(0.998, "of the average of the weights, the result", 0, 0.999999)
    w_mse: float = option(1.0, "weight of the MSE in the distortion", 0)
    w_perceptual: float = option(1.0, "weight of LPIPS in the distortion", 0)
    perceptual_share: float = option(0.25, "share of a batch that LPIPS sees", 1e-9, 1)
    lpips_variant: str = option("shift_tolerant", "weights of LPIPS", choices=VARIANTS)
    lazy: int = option(4, "LPIPS counts every so many-th step, so many times", 1)
    w_adversarial: float = option(0.7, "weight of the generator's loss: more is sharper", 0)
    drawn_share: float = option(0.5, "draws of N(0, I) that join a batch, as a share of it", 0, 1)
    mixed_precision: str = option("no", "of the decoder", choices=PRECISIONS)
    lpips_images: int = option(1000, "test images on which LPIPS is measured", 0)
    frames: int = option(24, "of the GIF, close together at the start", 1, 200)
    seed: int = option(0, "of the discriminator, the order and the noise", 0, 2**32 - 1)
    threads: int | None = threads()
    cuda_graphs: bool = cuda_graphs()
    log_with: str = tracker()

    def __post_init__(self):
        check_options(self)
        check_distortion(self)


def check_distortion(config) -> None:
    """Raise `ValueError` if nothing is asked of reconstructions."""
    if config.w_mse == config.w_perceptual == 0:
        raise ValueError("w_mse=0 and w_perceptual=0 leave no distortion: one must be above 0")


def with_budget(config, budget: str = "auto", images: int | None = None):
    """The config of a training with what it leaves open (None) decided by one of its `budgets`.

    "auto": "full" with a GPU, "quick" without, nothing if `epochs` is stated. What a VAE's training
    leaves open besides is decided by its latent's grid. `images`: how many there are to train on;
    None: your own pictures are counted for a VAE, and else it is MNIST's 60,000. Fewer images are
    seen more often, and a batch never holds more than there are. Raises `ValueError`.
    """
    check_kind(config, "config", TrainConfig, PriorTrainConfig, SharpenConfig)
    if budget not in ("auto", *config.budgets):
        raise ValueError(f"budget={budget!r} is not one of {('auto', *config.budgets)}")
    if budget == "auto" and config.epochs is None:
        budget = "full" if torch.accelerator.is_available() else "quick"
    decided = dict(config.budgets.get(budget, {}))
    if isinstance(config, TrainConfig):
        decided = LOOKS | RECIPES["vector" if config.model.latent_grid == 1 else "map"] | decided
        if config.model.likelihood == "bernoulli":
            decided |= {"w_perceptual": 0.0, "w_adversarial": 0.0}
        if images is None and is_own(config.dataset):
            images = count_own("train", config.dataset, config.data_root)
    if images is not None:
        most = config.max_train_images or decided.get("max_train_images") or MNIST_IMAGES
        there = min(images, most)
        if there < config.batch_size == type(config).batch_size:
            config = replace(config, batch_size=there)
        if config.epochs is None:
            whole = max(1, there // config.batch_size) * config.batch_size  # of a pass's batches
            decided["epochs"] = max(1, round(decided["epochs"] * most / whole))
    return replace(config, **{k: v for k, v in decided.items() if getattr(config, k) is None})


def run_name(config: TrainConfig) -> str:
    """A name for a run's folder: `latent_2`, or `fashion_mnist_latent_2_grid_1_beta_0.1`."""
    check_kind(config, "config", TrainConfig)
    model = config.model
    parts = {
        f"{dataset_name(config.dataset)}_": config.dataset != "mnist",
        f"latent_{model.latent_size}": True,
        f"_grid_{model.latent_grid}": model.latent_grid != model.map_size,
        f"_size_{model.image_size}": model.image_size not in (28, 32),
        "_conditional": model.num_classes > 0,
        "_autoencoder": not model.variational,
        "_bernoulli": model.likelihood == "bernoulli",
        f"_beta_{config.beta:g}": model.variational and config.beta != TrainConfig.beta,
        f"_epochs_{config.epochs}": config.epochs is not None,
        f"_images_{config.max_train_images}": config.max_train_images is not None,
        f"_seed_{config.seed}": config.seed != TrainConfig.seed,
    }
    return "".join(part for part, differs in parts.items() if differs)
