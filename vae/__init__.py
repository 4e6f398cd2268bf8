"""Variational autoencoders with latent sizes 2, 4 and 16 on MNIST. A name is imported when used."""

from importlib import import_module

_HOMES = {  # where each public name is defined
    "vae.data": ("DATASETS", "Digits", "class_names", "load_digits", "scale_images"),
    "vae.model": ("VAE", "VAEConfig"),
    "vae.posterior": ("CoupledGaussian", "DiagonalGaussian"),
    "vae.discriminator": ("ImageDiscriminator", "PatchDiscriminator"),
    "vae.perceptual": ("LPIPS",),
    "vae.prior": ("LatentPrior", "PriorConfig"),
    "vae.metrics": ("active_units", "evaluate", "importance_weighted_bound", "mse", "psnr", "ssim"),
    "vae.judge": ("Judge", "judge_images"),
    "vae.onnx_export": ("export_onnx",),
    "vae_store.files": ("FileError",),
    "vae_store.pixels": ("read_picture",),
    "vae.training.config": (
        "PriorTrainConfig",
        "SharpenConfig",
        "TrainConfig",
        "run_name",
        "with_budget",
    ),
    "vae.training.vae": ("Trainer", "train"),
    "vae.training.prior": ("train_prior",),
    "vae.training.sharpen": ("sharpen",),
    "vae_show.run": ("Run", "render"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name == "figures":  # where the notebooks look for pictures
        return import_module("vae_show.figures")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
