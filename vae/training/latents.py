"""What the trainings on a frozen VAE's latents share: a prior's, and that of a sharper decoder."""

from pathlib import Path

import torch
from torch import Tensor

from vae_store import folder
from vae_store.files import FileError, sha256

from ..data import BATCH, Digits, batches, load_digits, scale_images
from ..model import VAE
from .loop import checksum


def finished_vae(directory: Path, remedy: str) -> VAE:
    """The VAE in `directory`. Raises `ValueError`, with a `remedy`, if its training was cut off."""
    vae = VAE.from_pretrained(directory)
    if not folder.is_finished(directory):
        held = f"directory={str(directory)!r} holds a VAE whose training was cut off"
        raise ValueError(f"{held}: finish it first (--resume), or {remedy}")
    return vae


def of_own_images(metrics: dict) -> dict:
    """What the metrics of a VAE say of your own pictures, which is said of what follows it too."""
    return {key: metrics[key] for key in ("classes", "train_images") if key in metrics}


def vae_hash(directory: Path) -> str:
    """The SHA-256 of the weights in `directory`, by which a second training knows its VAE again."""
    return sha256((directory / VAE.weights_name).read_bytes())


def check_same_vae(saved: dict, directory: Path, trained: str, remedy: str) -> None:
    """Raise `ValueError` if the metrics of what was `trained` tell of another VAE than is there."""
    there = vae_hash(directory)
    if saved.get("vae", there) != there:  # older ones do not tell
        held = f"directory={str(directory)!r} holds a VAE that has changed"
        raise ValueError(f"{held} since {trained} was trained: {remedy}")


def digits_of(vae: VAE, directory: Path, config) -> tuple[Digits, Digits, dict, int]:
    """Training and test images of the VAE in `directory`, its metrics, the number of classes.

    Of the former as many as `config` has. Raises `ValueError` for other data than the VAE's, and
    `FileError` where it is not named.
    """
    metrics = folder.read_metrics(directory)
    of_vae = metrics["config"]
    if "dataset" not in of_vae:
        raise FileError(f"{directory / folder.METRICS_NAME} does not name the data set")
    root = config.data_root or of_vae.get("data_root", "data")
    channels, size, _ = vae.config.image_shape
    train_set, test_set = (
        load_digits(split, of_vae["dataset"], root, size=size, channels=channels)
        for split in ("train", "test")
    )
    seen = [part[: of_vae.get("max_train_images")] for part in train_set]
    seen += [part[: of_vae.get("max_test_images")] for part in test_set]
    if metrics.get("data", here := checksum(seen)) != here:
        given = f"dataset={of_vae['dataset']!r}, data_root={root!r}"
        raise ValueError(f"{given}: there is other data than the VAE was trained on")
    classes = max(int(part.labels.max()) for part in (train_set, test_set)) + 1
    few = Digits(*(part[: config.max_train_images] for part in train_set))
    return few, test_set, metrics, classes


@torch.no_grad()
def encode(vae: VAE, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of each image's posterior's Gaussian, (N, C, G, G), and its label.

    Of a Bernoulli likelihood, one draw of each binarised image.
    """
    labels, generator = labels.to(vae.device), torch.Generator().manual_seed(0)
    parts = batches(BATCH, images, labels if vae.config.num_classes else None)
    seen = ((vae.observed(scale_images(x.to(vae.device)), generator), given) for x, given in parts)
    found = [vae.encode(*part).gaussian for part in seen]
    return torch.cat([q.mean for q in found]), torch.cat([q.std for q in found]), labels
