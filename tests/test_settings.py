"""Settings: refused by name, equal by value, completed by a budget."""

import math

import pytest
import torch

import vae
from vae.training.config import run_name, with_budget


def test_the_budget_decides_what_is_left_open(monkeypatch):
    def decided(budget="auto", **options):
        config = with_budget(vae.TrainConfig(**options), budget)
        return config.epochs, config.max_train_images, config.max_test_images

    for has_gpu, expected in ((False, (1, 24_000, None)), (True, (3, None, None))):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert decided() == expected
        assert decided(epochs=2) == (2, None, None)
        assert decided("full", epochs=2, max_train_images=99) == (2, 99, None)
        assert decided("tiny", max_test_images=50) == (1, 320, 50)
    with pytest.raises(ValueError, match="budget='long'"):
        decided("long")


def test_a_runs_name_says_what_differs_from_the_defaults():
    assert run_name(vae.TrainConfig(vae.VAEConfig(latent_size=16))) == "latent_16"
    model = vae.VAEConfig(latent_size=8, latent_grid=1, num_classes=10)
    config = vae.TrainConfig(model, dataset="fashion_mnist", beta=0.5, epochs=2, seed=3)
    assert run_name(config) == "fashion_mnist_latent_8_grid_1_conditional_beta_0.5_epochs_2_seed_3"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dataset", "cifar"),
        ("epochs", 0),
        ("batch_size", 0),
        ("max_train_images", 0),
        ("learning_rate", 0.0),
        ("beta", -1.0),
        ("w_perceptual", math.nan),
        ("perceptual_share", 0.0),
        ("adversarial_start", 1.5),
        ("ema_decay", 1.0),
        ("mixed_precision", "int8"),
        ("lpips_variant", "v9"),
        ("seed", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*not allowed"):
        vae.TrainConfig(**{setting: value})
