"""Settings: refused by name, equal by value, completed by a budget."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vae
from vae.machinery.config import BUDGETS, LOOKS, run_name, with_budget
from vae.settings import config_differences


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
        assert decided("full", model=vae.VAEConfig(4, 1)) == (6, None, None)
        assert decided("quick", model=vae.VAEConfig(4, 1)) == (1, 24_000, None)
    for budget, expected in (("full", LOOKS), ("tiny", LOOKS), ("quick", BUDGETS["quick"])):
        looks = with_budget(vae.TrainConfig(), budget)
        assert {name: getattr(looks, name) for name in LOOKS} == {k: expected[k] for k in LOOKS}
    assert with_budget(vae.TrainConfig(frames=7), "quick").frames == 7
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
        ("threads", 0),
        ("threads", 1.5),
        ("threads", "two"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*not allowed"):
        vae.TrainConfig(**{setting: value})


def test_equal_values_are_equal_settings():
    assert vae.TrainConfig(beta=1) == vae.TrainConfig(beta=1.0)
    assert vae.VAEConfig(np.int64(4), channels=[8, 16, 16]) == vae.VAEConfig(
        4, channels=(8, 16, 16)
    )
    config = vae.TrainConfig(learning_rate=np.float32(0.5), data_root=Path("data"))
    assert config == vae.TrainConfig(learning_rate=0.5, data_root="data")
    assert type(config.learning_rate) is float
    for saved in ({"beta": 1}, {"beta": 1.0, "model": {"channels": [16, 32, 64]}}, {}):
        assert not config_differences(saved, vae.TrainConfig(**LOOKS))  # as before they had names
    changed = config_differences(
        {"beta": 0.5, "model": {"latent_size": 4}}, vae.TrainConfig(**LOOKS)
    )
    assert sorted(changed) == ["beta 0.5 there, 1.0 here", "latent_size 4 there, 2 here"]
    assert vae.VAEConfig(self_attention=np.True_) == vae.VAEConfig()
    for wrong in ({"data_root": b"data"}, {"beta": math.inf}, {"learning_rate": 10**400},
                  {"model": {"nope": 1}}, {"model": 3}, {"model": vae.PriorConfig()}):  # fmt: skip
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*not allowed|unknown.*nope"):
            vae.TrainConfig(**wrong)
    for of in (vae.VAE, vae.LatentPrior, vae.Judge):
        for wrong in ({"latent_size": 2}, 4, vae.TrainConfig()):
            with pytest.raises(ValueError, match=r"config=.* is not allowed: a .*Config"):
                of(wrong)
    with pytest.raises(ValueError, match=r"model=.*a PriorConfig"):
        vae.PriorTrainConfig(model=vae.VAEConfig())
    for wrong in ({"epochs": True}, {"epochs": 2.0}, {"beta": "1"}, {"dataset": 3}, {"beta": True}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*not allowed"):
            vae.TrainConfig(**wrong)
    with pytest.raises(ValueError, match="variational=1 is not allowed: bool"):
        vae.VAEConfig(variational=1)
