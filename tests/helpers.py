"""What several test files share beside fixtures."""

import multiprocessing
import os
import signal
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vae
from vae import perceptual
from vae.checks import MNIST_SHAPE
from vae.discriminator import ImageDiscriminator, PatchDiscriminator
from vae.machinery import animations, figures, notebook
from vae.machinery.cli import from_flags, parser
from vae.machinery.latents import PriorTrainer
from vae.machinery.loop import Training
from vae.machinery.machine import Machine
from vae.machinery.sharpening import SharpenTrainer

SMALL = (8, 16, 16)
TRAININGS = ("7x7, all four terms", "1x1, conditional", "prior", "sharpen")
FINISHED = {  # the metrics of a run that `train_prior` reads
    "config": {"dataset": "mnist", "data_root": "data", "max_test_images": 20},
    "history": {"train": [], "test": []},
    "test": {"sample": {}, "mean": {}},
}
FORKS = multiprocessing.get_context("forkserver")  # its processes have PyTorch from the start
FORKS.set_forkserver_preload(
    ["pytest", "skimage.metrics", "torch._dynamo", "vae.machinery.cli", "vae.machinery.run"]
)
SHORT_RUN = ["train", "--epochs", "1", "--max-train-images", "64", "--max-test-images", "20",
             "--channels", "8", "16", "16", "--lpips-images", "0", "--w-perceptual", "0",
             "--early-evaluations", "0", "--frames", "2", "--projected-images", "20"]  # fmt: skip
TIMED = ("training_seconds", "images_per_second")  # of a history's rows: never the same twice


def random_weights() -> dict[str, torch.Tensor]:
    """Weights of a narrow VGG16 and its LPIPS, named as `perceptual._read_weights` names them."""
    found, generator = {}, torch.Generator().manual_seed(0)
    for k, (before, after) in enumerate(pair for widths in STAGES for pair in pairwise(widths)):
        noise = torch.randn(after, before, 3, 3, generator=generator)
        found[f"net.{k}.weight"] = noise * (2 / 9 / before) ** 0.5
        found[f"net.{k}.bias"] = torch.zeros(after)
    for k, widths in enumerate(STAGES):
        found[f"lin{k}.model.1.weight"] = torch.full((1, widths[-1], 1, 1), 0.1)
    return found


STAGES = ((3, 8, 8), (8, 8, 8), *((8, 8, 8, 8),) * 3)
KINDS = PatchDiscriminator, ImageDiscriminator
DRAWN = random_weights()
NARROW = STAGES, lambda variant: DRAWN, ((8, MNIST_SHAPE), (10, 16, MNIST_SHAPE))
WIDE = (perceptual.STAGES, perceptual._read_weights,
        tuple(kind.__init__.__defaults__ for kind in KINDS))  # fmt: skip


def resize(patched, stages, read_weights, widths):
    """Let LPIPS and discriminators be as wide as this says: narrow ones are as small as `SMALL`."""
    patched.setattr(perceptual, "STAGES", stages)
    patched.setattr(perceptual, "_read_weights", read_weights)
    for kind, defaults in zip(KINDS, widths, strict=True):
        patched.setattr(kind.__init__, "__defaults__", defaults)


def make(**options) -> vae.VAE:
    """A small model whose every path carries."""
    torch.manual_seed(0)
    return filled(vae.VAE(vae.VAEConfig(channels=SMALL, **options)))


def make_prior(**options) -> vae.LatentPrior:
    """A small prior whose every path carries."""
    torch.manual_seed(0)
    return filled(vae.LatentPrior(vae.PriorConfig(channels=16, blocks=1, **options)))


def filled(module):
    """The module, its zero-initialised layers made random."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module


def shrink(monkeypatch):
    """Let networks be small, if nobody says otherwise, and the tiny budget tinier."""
    resize(monkeypatch, *NARROW)
    for config, small in ((vae.VAEConfig, SMALL), (vae.PriorConfig, 16)):
        pairs = zip(fields(config), config.__init__.__defaults__, strict=True)
        values = tuple(small if field.name == "channels" else default for field, default in pairs)
        monkeypatch.setattr(config.__init__, "__defaults__", values)
    few = {"max_train_images": 64, "max_test_images": 40, "lpips_images": 2, "frames": 3}
    for config in (vae.TrainConfig, vae.PriorTrainConfig, vae.SharpenConfig):
        tiny = config.budgets["tiny"]
        for name in few.keys() & tiny.keys():
            monkeypatch.setitem(tiny, name, few[name])


def small_prior(**options) -> vae.PriorTrainConfig:
    """Settings of a prior that trains in seconds."""
    config = {"epochs": 2, "max_train_images": 320, "batch_size": 32} | options
    model = vae.PriorConfig(3, channels=16, blocks=1, steps=2)
    return vae.PriorTrainConfig(model=model, **config)


def begin_training(name, folder, machine=Machine, **options):
    """One of the trainings, of twelve steps if no other settings are given."""
    (folder / "run").mkdir(exist_ok=True)
    few = {"epochs": 3, "max_train_images": 64, "batch_size": 16, **options}
    with pytest.MonkeyPatch.context() as patched:
        for module in ("trainings", "latents", "sharpening"):
            patched.setattr(f"vae.machinery.{module}.Machine", machine)
        if name == "prior":
            return PriorTrainer(vae.VAE.from_pretrained(folder), folder, small_prior(**few))
        more = {"couplings": 2} | ({"num_classes": 10} if "conditional" in name else {})
        if "sharpen" in name:
            plain = make(latent_size=3, latent_grid=1, posterior="coupled", **more).eval()
            config = vae.SharpenConfig(**few, lpips_images=4, frames=4)
            return SharpenTrainer(plain, folder, folder / "run", config)
        if "coupled" in name:
            more |= {"latent_size": 3, "posterior": "coupled"}
        weights = {"beta": 0.1, "w_perceptual": 0.05, "w_adversarial": 0.1}
        if name == "plain":
            more, weights["beta"] = {"variational": False}, 0.0
        if name == "bernoulli":
            more, weights = more | {"likelihood": name}, weights | {"w_perceptual": 0.0}
        grid = 1 if name.startswith("1x1") else None
        return vae.Trainer(vae.TrainConfig(
            vae.VAEConfig(latent_grid=grid, channels=SMALL, **more),
            max_test_images=20, projected_images=20, adversarial_start=0.25, lpips_images=4,
            perceptual_share=0.05, coupling_steps=0.5, early_evaluations=0, frames=4, **weights,
            **few), folder / "run")  # fmt: skip


def advance(training, steps: int):
    """The training, so many steps later."""
    for _ in range(steps):
        training.take_step()
    return training


def write_idx(raw: Path, images: torch.Tensor, labels: list[int], prefix: str = "") -> None:
    """IDX files of both splits, named as torchvision's are, "test" as EMNIST has it."""
    raw.mkdir(parents=True)
    arrays = {"images-idx3": images.reshape(-1, 28, 28).numpy(), "labels-idx1": np.uint8(labels)}
    for split in ("train", "t10k", "test"):
        for kind, array in arrays.items():
            header = np.array([0x800 + array.ndim, *array.shape], ">u4")
            content = header.tobytes() + array.tobytes()
            (raw / f"{prefix}{split}-{kind}-ubyte").write_bytes(content)


def interrupt_at(monkeypatch, *steps):
    """Send Ctrl-C to this process in the middle of these steps; twice where one stands twice."""
    take_step, left = Training.take_step, list(steps)

    def interrupted(self):
        while self.steps_done + 1 in left:
            left.remove(self.steps_done + 1)
            os.kill(os.getpid(), signal.SIGINT)
        take_step(self)

    monkeypatch.setattr(Training, "take_step", interrupted)


def draw_nothing(monkeypatch):
    """Let trainings and `render` draw no picture."""
    for module in ("latents", "run"):  # the first imports from the second, as it is
        monkeypatch.setattr(f"vae.machinery.{module}.draw", lambda *_: True)


def paint_nothing(monkeypatch):
    """Let figures be made and files be written, of no pixels."""
    for module in (figures, notebook):
        monkeypatch.setattr(module, "to_png", lambda figure: b"")
    monkeypatch.setattr(animations, "as_image", lambda figure: Image.new("RGB", (1, 1)))


def without_clocks(history):
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for rows in history.values()
        for row in rows
    ]


def failing(error: BaseException):
    def fail(*args, **kwargs):
        raise error

    return fail


def a_gigabyte_more(request):
    """Until the test's end, let this process have at most 1 GiB more of memory than it has now."""
    import resource  # of Linux

    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))


def start_apart(errors: Path, work, *arguments) -> multiprocessing.Process:
    """`work(*arguments)` in a process of its own; what it says on stderr is in that file."""
    process = FORKS.Process(target=_say_to, args=(errors, work, *arguments))
    process.start()
    return process


def _say_to(errors, work, *arguments):
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    work(*arguments)


def parsed(flags: str) -> vae.TrainConfig:
    """The settings of `python -m vae train` with these flags."""
    given = parser().parse_args(["train", *flags.split()])
    config = from_flags(vae.TrainConfig, given, model=from_flags(vae.VAEConfig, given))
    return vae.with_budget(config, given.budget)


def caught(monkeypatch, optimizer, module) -> dict[str, torch.Tensor]:
    """A dict that gets the module's gradients, by name, in place of a step of its optimiser."""
    found = {}

    def keep():
        assert not found
        found.update({name: p.grad.clone() for name, p in module.named_parameters()})

    monkeypatch.setattr(optimizer, "step", keep)
    return found


def same(model, other) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[k]) for k, t in ours.items())


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]
