"""Shared pieces of the tests: real digits, a small config, and no network."""

import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # here and in processes that tests start: two at once

import pytest
import torch

import vae


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every test runs offline: a connection is an error at once, not a time-out."""

    def refuse(*args, **kwargs):
        raise OSError("the tests have no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def digits() -> torch.Tensor:
    """64 real test digits, float32 in [-1, 1]."""
    return vae.scale_images(vae.load_digits("test").images[:64])


@pytest.fixture
def tiny():
    """A function that makes a TrainConfig which trains in seconds; keywords override."""

    def make(model: dict | None = None, **options) -> vae.TrainConfig:
        small = {"channels": (8, 16, 16), **(model or {})}
        return vae.TrainConfig(
            model=vae.VAEConfig(**small),
            **{
                "epochs": 1,
                "max_train_images": 512,
                "max_test_images": 100,
                "projected_images": 100,
                "lpips_images": 10,
                "batch_size": 32,
                "perceptual_share": 0.05,
                "mixed_precision": "no",
            }
            | options,
        )

    return make
