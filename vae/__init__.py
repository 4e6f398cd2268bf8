"""Variational autoencoders with latent sizes 2, 4 and 16 on MNIST."""

from .config import TrainConfig, run_name, with_budget
from .data import DATASETS, Digits, load_digits, scale_images
from .discriminator import PatchDiscriminator
from .figures import render
from .files import FileError
from .judge import Judge, judge_images
from .metrics import active_units, evaluate, importance_weighted_bound, mse, psnr, ssim
from .model import VAE, DiagonalGaussian, VAEConfig
from .perceptual import LPIPS
from .prior import LatentPrior, PriorConfig
from .prior_training import PriorTrainConfig, train_prior
from .run import Run
from .training import Trainer, train

__all__ = [
    "DATASETS",
    "LPIPS",
    "VAE",
    "DiagonalGaussian",
    "Digits",
    "FileError",
    "Judge",
    "LatentPrior",
    "PatchDiscriminator",
    "PriorConfig",
    "PriorTrainConfig",
    "Run",
    "TrainConfig",
    "Trainer",
    "VAEConfig",
    "active_units",
    "evaluate",
    "importance_weighted_bound",
    "judge_images",
    "load_digits",
    "mse",
    "psnr",
    "render",
    "run_name",
    "scale_images",
    "ssim",
    "train",
    "train_prior",
    "with_budget",
]
