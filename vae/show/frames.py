"""What the GIFs show, recorded at each evaluation: projected latents and ten reconstructions."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..checks import IMAGE_SIZE, gaussian
from ..data import BATCH, Digits, batches, scale_images
from ..model import VAE
from ..store.files import LARGEST, FileError, check_size, write_atomically

MOST_EXAMPLES = 10  # images whose reconstructions are shown
ARRAYS = {"labels": np.int64, "originals": np.float32, "epochs": np.float64, "points": np.float32,
          "reconstructions": np.float32, "classes": np.int64}  # fmt: skip


class Frames:
    """The frames of `latent.gif` and `reconstruction.gif`, one for each of T evaluations.

    `labels`: (N,) of the projected images; `points`: (T, N, 2), their places in the plane.
    `originals`: (K, 28, 28), one image of each of the first K `classes`, (K,), that there are;
    `reconstructions`: (T, K, 28, 28); both in [-1, 1]. `epochs`: (T,), which can be fractions.
    """

    def __init__(self, test_set: Digits, projected: int):
        """Choose the first `projected` images, and the first of each class, of ten at most."""
        labels = test_set.labels.cpu()
        first = torch.stack(
            [(labels == c).nonzero()[0, 0] for c in labels.unique()[:MOST_EXAMPLES]]
        )
        self.examples = first.to(test_set.images.device)
        self.labels, self.classes = labels[:projected].numpy(), labels[first].numpy()
        self.originals = scale_images(test_set.images[self.examples]).cpu()[:, 0].numpy()
        self.epochs = np.zeros(0)
        self.points = np.zeros((0, len(self.labels), 2), np.float32)
        self.reconstructions = np.zeros((0, *self.originals.shape), np.float32)

    @torch.no_grad()
    def record(self, model: VAE, test_set: Digits, epoch: float, seed: int = 0) -> None:
        """Add a frame: encode, project, and reconstruct through z ~ q(z|x) with the same noise."""
        images, labels = test_set if model.config.num_classes else (test_set.images, None)
        n, chosen = len(self.labels), self.examples
        parts = batches(BATCH, images[:n], None if labels is None else labels[:n])
        means = [model.encode(scale_images(x), given).mean.flatten(1).cpu() for x, given in parts]
        points = project(torch.cat(means).numpy(), self.points[-1] if len(self.points) else None)
        labels = None if labels is None else labels[chosen]
        posterior = model.encode(scale_images(images[chosen]), labels)
        noise = gaussian(*posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
        y = model.decode(posterior.sample(noise), labels)[:, 0].float().cpu()
        self.points = np.append(self.points, points[None], 0)
        self.reconstructions = np.append(self.reconstructions, y.numpy()[None], 0)
        self.epochs = np.append(self.epochs, epoch)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ARRAYS}

    def save(self, path: Path) -> None:
        """Write all arrays to one compressed .npz, in one step."""
        np.savez_compressed(buffer := io.BytesIO(), **self.arrays())
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Frames":
        """Read what `save` wrote. Raises `FileError` (a `ValueError`) naming the file."""
        frames = cls.__new__(cls)
        try:
            check_size(path)
            with zipfile.ZipFile(path) as archive:
                there = [name for name in ARRAYS if f"{name}.npy" in archive.namelist()]
                frames.restore({name: _read_array(archive, f"{name}.npy") for name in there})
            if not len(frames.epochs):
                raise ValueError("there is no frame")
        except MemoryError:
            raise  # says nothing about the file
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise FileError(f"{path} is not a run's frames: {error}") from error
        return frames

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over arrays that fit together. Raises `ValueError`, `KeyError` or `TypeError`."""
        if "classes" not in arrays:  # older files, which had all of them
            arrays = {**arrays, "classes": np.arange(len(arrays["originals"]))}
        given = {name: arrays[name].astype(of, casting="same_kind") for name, of in ARRAYS.items()}
        t, n, k = (len(given[name]) for name in ("epochs", "labels", "originals"))
        originals = (k, IMAGE_SIZE, IMAGE_SIZE)
        expected = {"originals": originals, "reconstructions": (t, *originals)}
        expected |= {"points": (t, n, 2), "classes": (k,)}
        for name, shape in expected.items():
            if given[name].shape != shape or 0 in shape[1:] or not np.isfinite(given[name]).all():
                raise ValueError(f"{name} is not {shape}, or not finite")
        vars(self).update(given)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz, if it is as large as it says: a small file could ask for terabytes."""
    with archive.open(name) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is not of NumPy's format 1.0")
        shape, transposed, kind = np.lib.format.read_array_header_1_0(file)
        size = math.prod(shape) * kind.itemsize
        if kind.hasobject or transposed or min(shape, default=0) < 0 or size > LARGEST:
            raise ValueError(f"{name} is {kind} {shape}")
        data = file.read(size + 1)
    if len(data) != size:
        raise ValueError(f"{name} is not as large as it says")
    return np.frombuffer(data, kind).reshape(shape)


def project(latents: np.ndarray, previous: np.ndarray | None = None) -> np.ndarray:
    """Latents (N, values) to points (N, 2): two values as they are, more by t-SNE.

    A single value is drawn along x, spread along y by the image's index. t-SNE (van der Maaten &
    Hinton 2008) starts from the principal components, or from `previous` (N, 2) and then without
    early exaggeration, so that points drift and never jump.
    """
    if latents.shape[1] == 1:
        latents = np.column_stack([latents, np.linspace(-1, 1, len(latents))])
    if latents.shape[1] == 2:
        return latents.astype(np.float32)
    if np.ptp(latents, axis=0).max() < 1e-6:  # all the same, which scikit-learn does not survive
        return np.zeros((len(latents), 2), np.float32) if previous is None else previous
    from sklearn.manifold import TSNE  # a second that nothing else needs

    n, start = len(latents), {"init": "pca", "max_iter": 1000}
    if previous is not None and previous.any():
        start = {"init": previous, "max_iter": 250, "early_exaggeration": 1}
        start["learning_rate"] = max(n / 12, 50)  # as in the first projection's early phase
    tsne = TSNE(perplexity=min(30, (n - 1) / 3), random_state=0, **start)
    return tsne.fit_transform(latents).astype(np.float32)
