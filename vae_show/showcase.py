"""What this repository shows: the reference's numbers, the shipped models, and where they lie."""

from pathlib import Path

from vae.model import VAEConfig
from vae_store.folder import is_finished

CHECKOUT = Path(__file__).parent.parent  # if the package is not installed elsewhere
# Published MSE, SSIM and PSNR (dB) of the system to beat, on a 7x7 grid: see docs/evaluation.md.
REFERENCE = {16: (0.0013, 0.9919, 35.5396), 4: (0.0025, 0.9847, 32.8133),
             2: (0.0040, 0.9803, 30.5386)}  # fmt: skip
SHIPPED = {  # folder in assets/: what the model there is made of
    **{f"latent_{size}": VAEConfig(size) for size in REFERENCE},
    **{f"global_{size}": VAEConfig(size, 1) for size in REFERENCE},
    "conditional_16": VAEConfig(16, 1, num_classes=10),
}
# folder of a model whose decoder was trained on: folder of the model before
SHARPENED = {f"sharp_{size}": f"global_{size}" for size in sorted(REFERENCE)}
SHARPENED["sharp_conditional_16"] = "conditional_16"
NO_ASSETS = "This needs `assets/` of the repository, here or one folder up: clone it to see this."


def asset(name: str) -> Path | None:
    """The folder of a shipped run: from `assets/` here, above, in Colab's clone or the checkout."""
    places = [Path(), Path(".."), Path("vae-mnist"), CHECKOUT]
    folders = [place / "assets" / name for place in places]
    return next((folder for folder in folders if is_finished(folder)), None)
