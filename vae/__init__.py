"""Variational autoencoders with latent sizes 2, 4 and 16 on MNIST. A name is imported when used."""

from importlib import import_module

_HOMES = {  # where each public name is defined
    "data": ("DATASETS", "Digits", "load_digits", "scale_images"),
    "model": ("VAE", "VAEConfig"),
    "posterior": ("CoupledGaussian", "DiagonalGaussian"),
    "discriminator": ("ImageDiscriminator", "PatchDiscriminator"),
    "perceptual": ("LPIPS",),
    "prior": ("LatentPrior", "PriorConfig"),
    "metrics": ("active_units", "evaluate", "importance_weighted_bound", "mse", "psnr", "ssim"),
    "judge": ("Judge", "judge_images"),
    "store.files": ("FileError",),
    "training.config": (
        "PriorTrainConfig",
        "SharpenConfig",
        "TrainConfig",
        "run_name",
        "with_budget",
    ),
    "training.vae": ("Trainer", "train"),
    "training.prior": ("train_prior",),
    "training.sharpen": ("sharpen",),
    "show.run": ("Run", "render"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name == "figures":  # where the notebooks look for pictures
        return import_module(".show.figures", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
