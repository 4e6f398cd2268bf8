"""What comes with the repository: trained models in `assets/`, and a folder of emoji."""

from pathlib import Path

from ..model import VAEConfig
from .config import TrainConfig
from .figures import describe
from .folder import is_finished
from .run import Run

CHECKOUT = Path(__file__).parents[2]  # if the package is not installed elsewhere
ROOTS = ".", "..", "vae-mnist", CHECKOUT  # of the repository: here, above, in Colab, a checkout
# Published MSE, SSIM and PSNR (dB) of the system to beat, on a 7x7 grid: see docs/evaluation.md.
REFERENCE = {16: (0.0013, 0.9919, 35.5396), 4: (0.0025, 0.9847, 32.8133),
             2: (0.0040, 0.9803, 30.5386)}  # fmt: skip
SHIPPED = {  # folder in assets/: the architecture of the model in it
    **{f"latent_{size}": VAEConfig(size).fitted() for size in REFERENCE},
    **{f"global_{size}": VAEConfig(size, 1).fitted() for size in REFERENCE},
    "conditional_16": VAEConfig(16, 1, num_classes=10).fitted(),
}
# folder of a model: folder of the model when its decoder was sharpened
SHARPENED = {f"global_{size}": f"sharp_{size}" for size in sorted(REFERENCE)}
SHARPENED["conditional_16"] = "sharp_conditional_16"


def asset(name: str) -> Path | None:
    """The folder of a shipped run in `assets/` of the repository, wherever that is."""
    folders = [Path(root) / "assets" / name for root in ROOTS]
    return next((folder for folder in folders if is_finished(folder)), None)


def locate(dataset: str) -> str:
    """A data set's name; "folder:emoji", if there is no such folder here, with the shipped one."""
    folders = [Path("emoji"), *(Path(root) / "notebooks" / "emoji" for root in ROOTS)]
    there = next((folder for folder in folders if folder.is_dir()), None)
    return f"folder:{there}" if dataset == "folder:emoji" and there else dataset


def shipped_name(config: TrainConfig) -> str:
    """The folder in assets/ of a shipped model; `ValueError` if there is none."""
    model = config.model.fitted()
    name = next((name for name, shipped in SHIPPED.items() if shipped == model), None)
    if config.dataset != "mnist" or name is None:
        given = f"USE_PRETRAINED=True is not allowed for {describe(model, config.dataset)}"
        raise ValueError(
            f"{given}: LATENT_SIZE in {tuple(REFERENCE)}, DATASET='mnist' and CONDITIONAL=False "
            "are, and so is CONDITIONAL=True with LATENT_SIZE=16 and LATENT_GRID=1"
        )
    return name


def load_pretrained(config: TrainConfig, sharpened: bool = False) -> Run | None:
    """The shipped run of a model; `ValueError` if there is none, or `assets/` is not found.

    `sharpened`: the run of the sharpened model, or None if there is none.
    """
    name = shipped_name(config)
    if sharpened and (name := SHARPENED.get(name)) is None:
        return None
    if (folder := asset(name)) is None:
        raise ValueError(
            f"USE_PRETRAINED=True needs assets/{name} of the repository, here, one folder "
            "up, or in vae-mnist/: clone the repository, or set USE_PRETRAINED=False to train"
        )
    return Run.load(folder)
