"""Shared pieces of the tests: real digits, a small config, and no network."""

import functools
import json
import os
import shutil
import signal
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # here and in processes that tests start: two at once

import helpers
import pytest
import torch
from helpers import SMALL, begin_training, draw_nothing, paint_nothing, resize

import vae
from vae import data
from vae.machinery import datasets

SLOW = ("test_explorer", "test_results", "test_reliability", "test_notebooks", "test_processes",
        "test_training", "test_export")  # fmt: skip
QUICK = ("test_cli", "test_data", "test_discriminator", "test_figures", "test_fingerprint",
         "test_house", "test_hub", "test_inputs", "test_losses", "test_metrics", "test_model",
         "test_optimizer", "test_settings", "test_step", "test_store")  # fmt: skip


def pytest_configure():
    """A job in the background ignores Ctrl-C, which the tests send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path, config):
    """With `-m quick`, the other files are not even imported."""
    name = collection_path.stem
    return config.option.markexpr == "quick" and name.startswith("test_") and name not in QUICK


def pytest_collection_modifyitems(items):
    """The slow files first, so that no worker is left with one of them at the end."""
    order = {name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(SLOW)))
    for item in items:
        if item.path.stem in QUICK:
            item.add_marker("quick")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every test runs offline: a connection is an error at once, not a time-out."""

    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        raise OSError("the tests have no network")

    def locally(self, address):  # as event loops on Windows do, and processes with each other
        here = isinstance(address, str | bytes) or address[0] in ("127.0.0.1", "::1")
        connect(self, address) if here else refuse()

    monkeypatch.setattr(socket.socket, "connect", locally)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True, scope="session")
def unpacked_once():
    """All tests of a process share MNIST, whose archives take longer to unpack than a step."""
    load, shared = data.load_mnist, functools.cache(lambda folder, split: load(split))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "load_mnist", lambda split: shared(data.MNIST_FOLDER, split))
        yield


resize(pytest.MonkeyPatch(), *helpers.NARROW)  # of all tests, if they do not say otherwise


@pytest.fixture
def wide_networks(monkeypatch):
    """VGG16, and discriminators as they are by default."""
    resize(monkeypatch, *helpers.WIDE)


@pytest.fixture(scope="session")
def digits() -> torch.Tensor:
    """64 real test digits, float32 in [-1, 1]."""
    return vae.scale_images(vae.load_digits("test").images[:64])


@pytest.fixture(scope="session")
def tiny():
    """A function that makes a TrainConfig which trains in seconds; keywords override."""
    few = {"epochs": 1, "max_train_images": 256, "max_test_images": 40, "projected_images": 40,
           "lpips_images": 4, "early_evaluations": 1, "frames": 4, "batch_size": 16,
           "perceptual_share": 0.05, "mixed_precision": "no"}  # fmt: skip

    def make_config(model: dict | None = None, **options) -> vae.TrainConfig:
        shape = {"channels": SMALL} | (model or {})
        return vae.TrainConfig(vae.VAEConfig(**shape), **few | options)

    return make_config


@pytest.fixture
def undrawn(monkeypatch):
    """Here no picture is drawn: those of a short training take longer than it."""
    draw_nothing(monkeypatch)


@pytest.fixture
def unpainted(monkeypatch):
    """Here figures are made and written, but not painted."""
    paint_nothing(monkeypatch)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A folder of an untrained VAE with the metrics that `train_prior` reads."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    model = vae.VAE(vae.VAEConfig(3, channels=SMALL))
    model.encoder.conv_out.bias.data[3:] = -6  # narrow posteriors: not all is noise
    model.save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(helpers.FINISHED))
    return folder


@pytest.fixture
def folder(run_dir, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(run_dir, tmp_path, dirs_exist_ok=True)


@pytest.fixture(params=["1x1", "prior", "sharpen"])
def begin(request, folder):
    """A function that begins one of the trainings, 2 passes of 4 steps; keywords override."""
    return functools.partial(begin_training, request.param, folder, epochs=2)


@pytest.fixture(scope="session")
def small(tiny, tmp_path_factory):
    """The settings of a short training, and that training, left alone, without its pictures."""
    config = tiny(epochs=2, max_train_images=192, frames=3)
    with pytest.MonkeyPatch.context() as patched:
        draw_nothing(patched)
        return config, vae.train(config, tmp_path_factory.mktemp("runs") / "alone")
