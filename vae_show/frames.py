"""What the GIFs show, recorded on a clock of its own: latents in the plane, ten reconstructions."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae.checks import gaussian
from vae.data import BATCH, Digits, batches, scale_images
from vae.model import VAE
from vae_store.files import LARGEST, FileError, check_size, write_atomically

MOST_EXAMPLES = 10  # images whose reconstructions are shown
COMPONENTS = 50  # that are kept of latents until they are projected
ARRAYS = {"labels": np.int64, "originals": np.float32, "epochs": np.float64, "kl": np.float64,
          "latents": np.float16, "points": np.float32, "reconstructions": np.float32,
          "classes": np.int64}  # fmt: skip


def frame_steps(total: int, count: int) -> list[int]:
    """Which of `total` steps end in a frame: `count` of them, or all, if there are not so many.

    They go in equal steps of the logarithm, from the five-hundredth part of the way (or from step
    1) to the last. Where two would be the same, the second moves on by one.
    """
    steps, last, count = [], 0, min(count, total)
    first = max(1, min(total / 500, total - count + 1))
    for place in np.geomspace(first, total, count) if count > 1 else [total]:
        last = max(round(place), last + 1)
        steps.append(last)
    return steps


class Frames:
    """The T frames of `latent.gif` and `reconstruction.gif`.

    `labels`: (N,) of the projected images; `points`: (T, N, 2), their places in the plane, for
    which `latents`, (T, N, D), stand until `project` has found them.
    `originals`: (K, H, W), or (K, 3, H, W) in RGB, ten images of as many `classes`, (K,), as there
    are; `reconstructions`: (T, *originals' shape); both in [-1, 1]. `epochs`: (T,), which can be
    fractions; `kl`: (T,), the rate of the projected images in nats, NaN where there is none.
    """

    def __init__(self, test_set: Digits, projected: int):
        """Choose the first `projected` images, and the first of each class, ten in all."""
        labels = test_set.labels.cpu()
        members = [(labels == c).nonzero()[:MOST_EXAMPLES, 0] for c in labels.unique()]
        turns = [(turn, k) for of_class in members for turn, k in enumerate(of_class.tolist())]
        first = [k for _, k in sorted(turns, key=lambda pair: pair[0])[:MOST_EXAMPLES]]
        first = torch.tensor(sorted(first, key=labels.tolist().__getitem__))
        self.examples = first.to(test_set.images.device)
        self.labels, self.classes = labels[:projected].numpy(), labels[first].numpy()
        self.originals = flat(scale_images(test_set.images[self.examples]).cpu()).numpy()
        self.epochs, self.kl = np.zeros(0), np.zeros(0)
        self.latents = np.zeros((0, len(self.labels), 0), np.float16)
        self.points = np.zeros((0, len(self.labels), 2), np.float32)
        self.reconstructions = np.zeros((0, *self.originals.shape), np.float32)

    @torch.no_grad()
    def record(self, model: VAE, test_set: Digits, epoch: float, seed: int = 0) -> None:
        """Add a frame: encode, and reconstruct through z ~ q(z|x) with the same noise."""
        images, labels = test_set if model.config.num_classes else (test_set.images, None)
        n = len(self.labels)
        parts = batches(BATCH, images[:n], None if labels is None else labels[:n])
        codes = [model.encode(scale_images(x), given) for x, given in parts]
        generator = torch.Generator().manual_seed(seed)
        y = self._reconstruct(model, test_set, generator)
        noise = gaussian(n, *model.config.latent_shape, generator=generator).split(BATCH)
        rates = [code.kl(part) for code, part in zip(codes, noise, strict=True)]
        means = torch.cat([code.mean.flatten(1).float().cpu() for code in codes])
        self._keep("latents" if means.shape[1] > 2 else "points", components(means))
        self._keep("reconstructions", y)
        self._keep("epochs", torch.tensor(epoch, dtype=torch.float64))
        kl = torch.cat(rates).mean().item() if model.config.variational else math.nan
        self._keep("kl", torch.tensor(kl))

    def _reconstruct(self, model: VAE, test_set: Digits, generator: torch.Generator) -> Tensor:
        """The examples through z ~ q(z|x), as `originals` are."""
        chosen = self.examples
        asked = test_set.labels[chosen] if model.config.num_classes else None
        posterior = model.encode(scale_images(test_set.images[chosen]), asked)
        noise = gaussian(len(chosen), *model.config.latent_shape, generator=generator)
        return flat(model.decode(posterior.sample(noise), asked).float().cpu())

    @torch.no_grad()
    def compare(self, model: VAE, test_set: Digits, seed: int = 0) -> np.ndarray:
        """The examples in a row, and below each its reconstruction: uint8 (H, W, 3)."""
        y = self._reconstruct(model, test_set, torch.Generator().manual_seed(seed)).numpy()
        both = np.concatenate([self.originals, y])
        both = both if both.ndim == 4 else np.repeat(both[:, None], 3, axis=1)
        rows = both.reshape(2, -1, *both.shape[1:]).transpose(0, 3, 1, 4, 2)
        pixels = rows.reshape(2 * both.shape[2], -1, 3)
        return np.round((pixels + 1) * 127.5).astype(np.uint8)

    def _keep(self, name: str, of_a_frame: Tensor) -> None:
        before, row = getattr(self, name), of_a_frame.numpy()[None]
        rows = np.concatenate([before.reshape(len(before), *row.shape[1:]), row])
        setattr(self, name, rows.astype(ARRAYS[name]))

    def psnr(self) -> np.ndarray:
        """The mean PSNR of the reconstructions, in dB: (T,)."""
        error = (self.reconstructions - self.originals) ** 2
        error = error.reshape(*error.shape[:2], -1).mean(2)
        return 10 * np.log10(4 / np.maximum(error, 1e-10)).mean(1)

    def project(self) -> None:
        """Let latents become points, if they are not yet."""
        if len(self.latents):
            self.points = project_frames(self.latents.astype(np.float32))
            self.latents = self.latents[:0, :, :0]

    def arrays(self) -> dict[str, np.ndarray]:
        known = np.isfinite(self.kl).all()
        return {name: getattr(self, name) for name in ARRAYS if known or name != "kl"}

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
        except MemoryError:
            raise  # says nothing about the file
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise FileError(f"{path} is not a run's frames: {error}") from error
        return frames

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over arrays that fit together. Raises `ValueError`, `KeyError` or `TypeError`."""
        t, n, k = (len(arrays[name]) for name in ("epochs", "labels", "originals"))
        of_old = {  # what older files lack: they had all classes, and their places in the plane
            "classes": np.arange(k), "kl": np.full(t, np.nan), "latents": np.zeros((0, n, 0)),
        }  # fmt: skip
        given = {
            name: (arrays if name in arrays else of_old)[name].astype(of, casting="same_kind")
            for name, of in ARRAYS.items()
        }
        originals, waiting = given["originals"].shape, given["latents"]
        if originals[1:-2] not in ((), (3,)) or originals[-2] != originals[-1]:
            raise ValueError(f"originals is {originals}; (K, H, H) or (K, 3, H, H) is expected")
        expected = {"originals": originals, "reconstructions": (t, *originals), "kl": (t,)}
        expected |= {"epochs": (t,), "labels": (n,), "classes": (k,)}
        expected |= {"points": (0 if len(waiting) else t, n, 2)}
        if len(waiting):
            expected["latents"] = (t, n, min(COMPONENTS, waiting.shape[-1]))
        for name, shape in expected.items():
            whole = name == "kl" or np.isfinite(given[name]).all()
            if given[name].shape != shape or 0 in shape[1:] or not whole:
                raise ValueError(f"{name} is not {shape}, or not finite")
        vars(self).update(given)


def flat(images: Tensor) -> Tensor:
    """Images (N, C, H, W) without the channel of grey ones: (N, H, W), or (N, 3, H, W)."""
    return images[:, 0] if images.shape[1] == 1 else images


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


def components(latents: Tensor) -> Tensor:
    """Latents (N, D) as they are where D <= 2, a single value spread along y by the image's index.

    More become their first COMPONENTS principal components, with a variance of 1 in all: t-SNE asks
    for no more than distances, in any unit.
    """
    if latents.shape[1] == 1:
        return torch.column_stack([latents, torch.linspace(-1, 1, len(latents))])
    if latents.shape[1] == 2:
        return latents
    centred = (latents - latents.mean(0)).double().nan_to_num()  # training stops at NaN, not this
    _, directions = torch.linalg.eigh(centred.T @ centred)
    kept = centred @ directions[:, -COMPONENTS:]
    return kept / kept.square().sum(1).mean().sqrt().clamp(min=1e-6)


def project_frames(latents: np.ndarray) -> np.ndarray:
    """Latents of T frames, (T, N, D), to points (T, N, 2), by t-SNE (van der Maaten & Hinton 2008).

    The last frame is fitted in full, from its principal components. Each one before starts from the
    one after it, and takes 100 iterations without early exaggeration: points drift and never jump.
    The plane has no unit: every cloud is made as large as the others.
    """
    from sklearn.manifold import TSNE  # a second that nothing else needs

    n, found, places = latents.shape[1], [], np.zeros((latents.shape[1], 2), np.float32)
    options = {"init": "pca", "max_iter": 500}
    for frame in latents[::-1]:
        if np.ptp(frame, axis=0).max() > 1e-6:  # t-SNE does not survive latents that are all one
            tsne = TSNE(perplexity=min(30, (n - 1) / 3), random_state=0, **options)
            places = tsne.fit_transform(frame).astype(np.float32)
            # a gradient below the limit ends each of two phases, and is looked at every 50 steps
            options = {"init": places, "max_iter": 250, "min_grad_norm": 1e9}
            options |= {"early_exaggeration": 1, "angle": 1}  # a larger angle is coarser and faster
        centred = places - places.mean(0)
        found.append(centred / max(np.sqrt(np.square(centred).sum(1).mean()), 1e-6))
    return np.stack(found[::-1])
