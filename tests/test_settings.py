"""Settings: refused by name, equal by value, completed by a budget."""

import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vae
from vae.machinery.config import BUDGETS, MEASURED, check_same_settings, run_name, with_budget
from vae.settings import from_saved


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
    for budget in BUDGETS:
        looks, expected = with_budget(vae.TrainConfig(), budget), MEASURED | BUDGETS[budget]
        assert all(getattr(looks, name) == expected[name] for name in MEASURED)
    assert with_budget(vae.TrainConfig(frames=7), "quick").frames == 7
    with pytest.raises(ValueError, match="budget='long'"):
        decided("long")


def test_a_runs_name_says_what_differs_from_the_defaults_and_a_folder_stands_without_its_path():
    assert run_name(vae.TrainConfig(vae.VAEConfig(latent_size=16))) == "latent_16"
    model = vae.VAEConfig(latent_size=8, latent_grid=1, num_classes=10)
    config = vae.TrainConfig(model, dataset="fashion_mnist", beta=0.5, epochs=2, seed=3)
    assert run_name(config) == "fashion_mnist_latent_8_grid_1_conditional_beta_0.5_epochs_2_seed_3"
    config = vae.TrainConfig(dataset="folder:/content/drive/My Drive/pets/", epochs=2)
    assert run_name(config) == "pets_latent_2_epochs_2"
    assert run_name(vae.TrainConfig(dataset="file:a/b/c.npz")) == "c_latent_2"


@pytest.mark.parametrize("wrong", [
    {"dataset": "cifar"}, {"epochs": 0}, {"batch_size": 0}, {"max_train_images": 0}, {"seed": -1},
    {"learning_rate": 0.0}, {"beta": -1.0}, {"w_perceptual": math.nan}, {"perceptual_share": 0.0},
    {"adversarial_start": 1.5}, {"ema_decay": 1.0}, {"mixed_precision": "fp16"}, {"threads": 0},
    {"lpips_variant": "v9"}, {"threads": 1.5}, {"threads": "two"}, {"data_root": b"data"},
    {"beta": math.inf}, {"learning_rate": 10**400}, {"model": 3}, {"model": vae.PriorConfig()},
    {"model": {"nope": 1}}, {"model": {"variational": 1}}, {"epochs": True}, {"epochs": 2.0},
    {"beta": "1"}, {"beta": True}, {"dataset": 3},
    {"mixed_precision": "auto"},
])  # fmt: skip
def test_impossible_settings_are_refused_by_name(wrong):
    name = next(iter(wrong))
    said = f"{name}=.*not allowed|unknown settings.*nope|variational=1 is not allowed: bool"
    with pytest.raises(ValueError, match=said):
        vae.TrainConfig(**wrong)


def sampled(seed: int) -> dict:
    """Valid values of some of VAEConfig's fields."""
    choose = random.Random(seed).choice
    size = choose((None, 28, 32, 64))
    values = {
        "latent_size": choose((1, 2, 4, 16)), "latent_grid": choose((None, 1, (size or 32) // 4)),
        "channels": choose(((8, 16, 16), (16, 8, 32))), "blocks": choose((1, 2)),
        "self_attention": choose((True, False)), "couplings": choose((0, 2, 12)),
        "posterior": choose((None, "diagonal", "coupled")), "variational": choose((True, False)),
        "likelihood": choose(("calibrated", "bernoulli")), "image_size": size,
        "image_channels": choose((None, 1, 3)),
    }  # fmt: skip
    values |= choose(({"cross_attention": False}, {"num_classes": 7}, {"num_classes": 0}))
    given = {name: value for name, value in values.items() if choose((True, False))}
    return given | {name: values[name] for name in ("latent_grid", "image_size")}  # which must fit


@pytest.mark.parametrize("seed", range(50))
def test_equal_settings_behave_equally(seed):
    changes = sampled(seed)
    config = vae.VAEConfig(**changes)
    expected = config.fitted(3, 32)
    assert replace(vae.VAEConfig(), **changes).fitted(3, 32) == expected
    for one in (config, expected):  # to JSON and back, before the images are known and after
        assert from_saved(vae.VAEConfig, json.loads(json.dumps(asdict(one)))) == one
        assert from_saved(vae.VAEConfig, asdict(one)).fitted(3, 32) == expected
    size = changes["image_size"] or 32
    assert expected.image_shape == (changes.get("image_channels") or 3, size, size)
    assert None not in asdict(expected).values()
    other = replace(vae.VAEConfig(), latent_size=4)
    assert other.fitted().image_shape == (1, 28, 28)
    assert other.fitted(3, 32).image_shape == (3, 32, 32)
    assert replace(vae.VAEConfig(latent_grid=1), latent_size=4).fitted().posterior == "coupled"


def test_equal_values_are_equal_settings_and_give_equal_models():
    plain = {"latent_size": 4, "channels": (8, 16, 16), "latent_grid": 1}
    numbers = {"latent_size": np.int64(4), "channels": [8, np.uint8(16), 16], "latent_grid": 1}
    models = [vae.VAEConfig(**plain), vae.VAEConfig(**numbers, self_attention=np.True_)]
    configs = [
        vae.TrainConfig(models[0], beta=1.0, learning_rate=0.5, data_root="data"),
        vae.TrainConfig(models[1], beta=1, learning_rate=np.float32(0.5), data_root=Path("data")),
        vae.TrainConfig(plain | {"channels": [8, 16, 16]}, beta=np.float64(1), learning_rate=0.5),
    ]
    weights = []
    for config in configs:
        assert config == configs[0]
        assert json.dumps(asdict(config)) == json.dumps(asdict(configs[0]))  # not 1, but 1.0
        torch.manual_seed(3)
        weights.append(vae.VAE(config.model).state_dict())
        torch.testing.assert_close(weights[-1], weights[0], rtol=0, atol=0)


def test_saved_settings_are_compared_with_those_of_today_by_what_they_decide():
    config, later = vae.TrainConfig(**MEASURED), MEASURED | {"later": 3, "data_root": "x"}
    check_same_settings(later | {"beta": 1, "model": {"channels": [16, 32, 64]}}, config, "it")
    other = later | {"beta": 0.5, "model": {"latent_size": 4}}
    with pytest.raises(ValueError, match=r"\(beta 0\.5 there, 1\.0 here; latent_size 4 there, 2 "):
        check_same_settings(other, config, "it")
