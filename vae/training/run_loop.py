"""The loop of a training whose result is a run: a VAE, what was measured of it, its pictures."""

import time
import warnings

import torch
from torch import Tensor

from vae_show.frames import Frames
from vae_show.run import Run, render
from vae_store.checkpoint import under
from vae_store.environment import peak_memory_mb
from vae_store.folder import FRAMES_NAME

from ..data import Digits
from ..metrics import AGREEMENT, evaluate
from ..model import VAE
from ..perceptual import LPIPS
from .loop import Loop
from .step import Networks

RUNNING_IMAGES, RUNNING_LPIPS_IMAGES = 1000, 50  # that are measured on the way, of the test set's
COMPARED = 500  # test images that scikit-image measures too


class RunLoop(Loop):
    """A loop that leaves a run. A subclass gives what stands here, besides what `Loop` asks for."""

    result: VAE  # with the averaged weights
    test_set: Digits
    networks: Networks
    frames: Frames

    def load_lpips(self) -> LPIPS | None:
        """LPIPS, if the loss or a measurement asks for it."""
        if not (self.config.w_perceptual or self.config.lpips_images):
            return None
        return LPIPS(self.config.lpips_variant).to(self.device)

    def note(self) -> None:
        """Record a frame of the GIFs."""
        self.frames.record(self.result, self.test_set, self.place()["epoch"])

    def measure(self) -> None:
        """Evaluate the averaged weights, and save model, metrics and frames."""
        lpips_images = min(RUNNING_LPIPS_IMAGES, self.config.lpips_images)
        self.keep_measured(self.evaluate(RUNNING_IMAGES, mean=False, lpips_images=lpips_images))
        self.run.save()
        if self.machine.trackers:
            seen = self.frames.compare(self.result, self.test_set)
            self.machine.log_picture("test/reconstructions", seen, self.step)

    def keep_measured(self, measured: dict) -> None:
        """Add what `evaluate` gave to the history."""
        rate = {k: measured[k] for k in ("kl", "neg_elbo") if k in measured}
        row = self.place() | {"training_seconds": self.log.seconds}
        self.keep("test", row | measured["sample"] | rate)

    def evaluate(self, images: int | None = None, **options) -> dict:
        """Measure the averaged weights on the first so many test images; None: on all."""
        some = (tensor[:images] for tensor in self.test_set)
        return evaluate(self.result, *some, lpips=self.networks.lpips, **options)

    def finish(self, started: float) -> None:
        """Measure all test images, mark the run as finished, draw the pictures."""
        compared = self.evaluate(COMPARED, lpips_images=0, reference=True)
        test = self.evaluate(lpips_images=self.config.lpips_images)
        apart = test["skimage_difference"] = compared["skimage_difference"]
        if apart > AGREEMENT:
            text = f"MSE, SSIM or PSNR differs from scikit-image's by {apart:.2g}"
            warnings.warn(f"{text}, more than {AGREEMENT}", stacklevel=2)
        seconds = {"training": self.log.seconds, "all": time.perf_counter() - started}
        self.metrics |= {"seconds": seconds, "peak_memory_mb": peak_memory_mb(self.device)}
        self.metrics["test"] = test  # which is what makes it finished
        self.run.save()
        render(self.run)  # which warns of pictures that cannot be drawn, and goes on
        self.frames.save(self.directory / FRAMES_NAME)  # projected, which is smaller

    def record(self) -> dict[str, Tensor]:
        return {f"frames.{k}": torch.from_numpy(v) for k, v in self.frames.arrays().items()}

    def take_record(self, tensors: dict[str, Tensor]) -> None:
        arrays = {k: t.numpy() for k, t in under("frames", tensors).items()}
        if "latents" not in arrays:  # an older version's, which recorded them at evaluations
            per_frame = ("epochs", "points", "reconstructions")
            arrays |= {name: arrays[name][:0] for name in per_frame}
        self.frames.restore(arrays)

    @property
    def run(self) -> Run:
        """The run as it stands: the averaged weights, the metrics and the frames so far."""
        return Run(self.directory, self.result, self.metrics, self.frames)
