"""What others have published: the data sets of torchvision, and the weights of LPIPS."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from .files import FileError, sha256

TORCHVISION = {  # name here: there, what else it is told, an image's shape
    "fashion_mnist": ("FashionMNIST", {}, (1, 28, 28)),
    "kmnist": ("KMNIST", {}, (1, 28, 28)),
    "emnist_digits": ("EMNIST", {"split": "digits"}, (1, 28, 28)),
    "cifar10": ("CIFAR10", {}, (3, 32, 32)),
}
WEIGHT_FILES = {  # variant: package and path in it, SHA-256
    "shift_tolerant": ("stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",
                       "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"),
    "v0.1": ("lpips/weights/v0.1/vgg.pth",
             "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
}  # fmt: skip


def load_from_torchvision(split: str, dataset: str, root: Path) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, C, H, W), and labels, int64 (N,); in `root`, or downloaded to it.

    Raises `FileError` for a download that cannot be done, and files that cannot be read.
    """
    from torchvision import datasets  # half a second that MNIST does not need

    name, part, shape = TORCHVISION[dataset]
    try:
        loaded = getattr(datasets, name)(root, train=split == "train", download=True, **part)
        images, labels = torch.as_tensor(loaded.data), torch.as_tensor(loaded.targets).long()
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1).contiguous()
        if images.shape != (len(labels), *shape):
            raise ValueError(f"images {tuple(images.shape)} for {len(labels)} labels")
    except Exception as error:  # torchvision raises what the damage happens to lead to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        place = root if dataset == "cifar10" else root / name / "raw"
        raise FileError(
            f"dataset={dataset!r} could not be downloaded or read by torchvision ({reason}). Put "
            f"its unpacked files, under torchvision's names, into {place} (the folder is root, or "
            "--data-root) and try again."
        ) from error
    if dataset == "emnist_digits":  # EMNIST stores its images transposed
        images = images.transpose(2, 3).contiguous()
    return images, labels


def lpips_weights(variant: str) -> dict[str, Tensor]:
    """The weights of VGG16 and of LPIPS, by their names there, of the packages that ship them.

    Raises `FileError` for those that are not installed, not the published ones, or not to be had.
    """
    place, expected = WEIGHT_FILES[variant]
    package, _, name = place.partition("/")
    spec = find_spec(package)  # finds the package's folder without running its code
    if spec is None:
        raise FileError(f"LPIPS variant={variant!r} needs weights: pip install {package}")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.is_file() or sha256(path.read_bytes()) != expected:
        remedy = f"pip install --force-reinstall --no-deps {package}"
        raise FileError(f"{path} is missing or not the published file (SHA-256): {remedy}")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return weights | (torchvision_vgg16() if variant == "v0.1" else {})


def torchvision_vgg16() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise FileError(
            f"LPIPS variant='v0.1' needs torchvision's VGG16, and {weights.url} could not be had "
            f"({error}). Put that file into {torch.hub.get_dir()}/checkpoints/, or use "
            "variant='shift_tolerant', which needs no download."
        ) from error
