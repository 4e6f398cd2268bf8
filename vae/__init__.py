"""Variational autoencoders with latent sizes 2, 4 and 16 on MNIST."""

from .config import TrainConfig, run_name, with_budget
from .data import DATASETS, Digits, load_digits, scale_images
from .discriminator import PatchDiscriminator
from .figures import render
from .files import FileError
from .metrics import evaluate, mse, psnr, ssim
from .model import VAE, DiagonalGaussian, VAEConfig
from .perceptual import LPIPS
from .run import Run
from .training import Trainer, train

__all__ = [
    "DATASETS",
    "LPIPS",
    "VAE",
    "DiagonalGaussian",
    "Digits",
    "FileError",
    "PatchDiscriminator",
    "Run",
    "TrainConfig",
    "Trainer",
    "VAEConfig",
    "evaluate",
    "load_digits",
    "mse",
    "psnr",
    "render",
    "run_name",
    "scale_images",
    "ssim",
    "train",
    "with_budget",
]
