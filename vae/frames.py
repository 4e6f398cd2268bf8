"""What the GIFs show, recorded at each evaluation: projected latents and ten reconstructions."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data import Digits, scale_images
from .files import FileError, write_atomically
from .model import VAE

CLASSES = 10
ARRAYS = ("labels", "example_labels", "originals", "epochs", "points", "reconstructions")


class Frames:
    """The frames of `latent.gif` and `reconstruction.gif`, one for each evaluation.

    `labels`: (N,) of the projected images. `points`: (T, N, 2) their places in the plane.
    `example_labels`: (10,), `originals`: (10, 28, 28), `reconstructions`: (T, 10, 28, 28), one
    image of each class, in [-1, 1]. `epochs`: (T,), fractions of an epoch where a frame is early.
    """

    def __init__(self, test_set: Digits, projected: int):
        """Choose the images: the first `projected`, and the first of each class."""
        labels = test_set.labels.cpu()
        self.examples = torch.cat([(labels == c).nonzero()[:1, 0] for c in range(CLASSES)])
        self.noise = None
        self.labels = labels[:projected].numpy()
        self.example_labels = labels[self.examples].numpy()
        examples = self.examples.to(test_set.images.device)
        self.originals = scale_images(test_set.images[examples]).cpu()[:, 0].numpy()
        self.epochs: list[float] = []
        self.points: list[np.ndarray] = []
        self.reconstructions: list[np.ndarray] = []

    @torch.no_grad()
    def record(self, model: VAE, test_set: Digits, epoch: float, seed: int = 0) -> None:
        """Add a frame: encode, project, and reconstruct through z ~ q(z|x) with the same noise."""
        device = test_set.images.device
        conditional = model.config.num_classes > 0

        def encode(images: Tensor, labels: Tensor):
            return model.encode(scale_images(images), labels if conditional else None)

        n = len(self.labels)
        chunks = zip(test_set.images[:n].split(500), test_set.labels[:n].split(500), strict=True)
        latents = torch.cat([encode(*chunk).mean.flatten(1).cpu() for chunk in chunks]).numpy()
        self.points.append(project(latents, self.points[-1] if self.points else None))
        examples = self.examples.to(device)
        labels = test_set.labels[examples]
        posterior = encode(test_set.images[examples], labels)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        images = model.decode(posterior.sample(noise), labels if conditional else None)
        self.reconstructions.append(images[:, 0].float().cpu().numpy())
        self.epochs.append(epoch)

    def save(self, path: Path) -> None:
        """Write all arrays to one compressed .npz, in one step."""
        arrays = {name: np.asarray(getattr(self, name)) for name in ARRAYS}
        write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))

    @classmethod
    def load(cls, path: Path) -> "Frames":
        """Read what `save` wrote. Raises `FileError` (a `ValueError`) naming the file."""
        frames = cls.__new__(cls)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for name in ARRAYS:
                    setattr(frames, name, arrays[name])
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise FileError(f"{path} is not a run's frames: {error}") from error
        return frames


def project(latents: np.ndarray, previous: np.ndarray | None = None) -> np.ndarray:
    """Latents (N, values) to points (N, 2): as they are if there are two values, else by t-SNE.

    The first projection starts from the principal components. Every later one starts from
    `previous` (N, 2) and has no early exaggeration, so that points drift and never jump (van der
    Maaten & Hinton 2008; scikit-learn's implementation).
    """
    if latents.shape[1] == 2:
        return latents.astype(np.float32)
    if latents.shape[1] == 1:  # one value: along x, in rows by rank of the image's index
        return np.column_stack([latents[:, 0], np.linspace(-1, 1, len(latents))]).astype(np.float32)
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(latents) - 1) / 3)
    if previous is None:
        tsne = TSNE(perplexity=perplexity, init="pca", max_iter=1000, random_state=0)
    else:
        tsne = TSNE(perplexity=perplexity, init=previous, early_exaggeration=1, max_iter=250,
                    learning_rate=max(len(latents) / 12, 50), random_state=0)  # fmt: skip
    return tsne.fit_transform(latents).astype(np.float32)
