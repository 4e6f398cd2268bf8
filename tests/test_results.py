"""What `assets/` ships: that it beats the reference, and that its numbers are its weights'."""

import json

import pytest
import results
import torch
from results import ROOT

import vae
from vae.cli import from_flags, parser
from vae.config import config_differences
from vae.run import read_metrics


@pytest.mark.parametrize("size", results.REFERENCE)
def test_a_shipped_model_beats_the_reference_and_has_the_numbers_it_claims(size):
    folder = ROOT / "assets" / f"latent_{size}"
    metrics = read_metrics(folder)
    config, claimed = metrics["config"], metrics["test"]
    assert (claimed["images"], claimed["latent_values"]) == (10_000, size * 49)
    assert all(config[w] > 0 for w in ("w_mse", "w_perceptual", "w_adversarial", "beta"))
    assert (folder / "model.safetensors").stat().st_size <= 6e6
    sample = claimed["sample"]
    assert results.beats_reference(size, sample)

    digits = vae.load_digits("test")  # drawn for all 10,000, or the noise is not the same
    measured = vae.evaluate(
        vae.VAE.from_pretrained(folder), digits.images, mean=False, lpips_images=0
    )
    for name in ("mse", "ssim", "psnr"):
        assert measured["sample"][name] == pytest.approx(sample[name], rel=1e-4), name
    assert measured["kl"] == pytest.approx(claimed["kl"], rel=1e-4)


@pytest.mark.parametrize("size", results.REFERENCE)
def test_the_discriminator_is_alive_at_the_end(size):
    last = read_metrics(ROOT / "assets" / f"latent_{size}")["history"]["train"][-1]
    assert last["discriminator"] < 1.8
    assert 0.55 <= last["accuracy_real"] <= 0.95
    assert 0.55 <= last["accuracy_fake"] <= 0.95


def parsed(flags):
    given = parser().parse_args(["train", *flags.split()])
    config = from_flags(vae.TrainConfig, given, model=from_flags(vae.VAEConfig, given))
    return vae.with_budget(config, given.budget)


def test_every_command_of_the_results_is_one_that_trains():
    for name, flags in results.runs().items():
        config = parsed(flags)
        assert (config.beta > 0) == config.model.variational
        assert (config.model.latent_grid == 1) == name.startswith(
            ("global", "conditional", "autoencoder")
        ) or name == "autoencoder/4 on 7x7"


@pytest.mark.parametrize("size", results.REFERENCE)
def test_a_shipped_model_has_the_settings_of_its_command(size):
    metrics = read_metrics(ROOT / "assets" / f"latent_{size}")
    assert not config_differences(metrics["config"], parsed(results.runs()[f"latent_{size}"]))
    assert "-dirty" not in metrics["environment"]["commit"]


def test_the_curve_has_every_size_and_beta_and_less_rate_is_more_distortion():
    rows = json.loads((ROOT / "assets" / "rate_distortion.json").read_text())
    runs = {k.partition("/")[2]: v for k, v in results.runs().items() if "rate_distortion" in k}
    assert {key: row["command"] for key, row in rows.items()} == {
        key: f"python -m vae train {flags}" for key, flags in runs.items()
    }
    for size in results.REFERENCE:
        tests = [row["test"] for row in rows.values() if row["latent_size"] == size]
        tests.sort(key=lambda test: test["kl"])
        assert len(tests) == 4 - (size == 4)
        psnr = [test["sample"]["psnr"] for test in tests]
        assert psnr == sorted(psnr)


def test_the_comparisons_hold_the_commands_that_made_them_and_live_discriminators():
    rows = json.loads((ROOT / "assets" / "ablation.json").read_text())
    assert list(rows) == list(results.ABLATION)
    commands = [f"python -m vae train {flags}" for flags in results.runs().values()]
    for key, row in rows.items():
        assert row["command"] in commands, key
        assert "-dirty" not in row["commit"], key
        watched = row["discriminator"]
        assert bool(watched) == (key in ("+ adversarial", "all four")), key
        if watched:
            assert watched["discriminator"] < 1.8, key
            assert 0.55 <= watched["accuracy_real"] <= 0.95, key
            assert 0.55 <= watched["accuracy_fake"] <= 0.95, key


@pytest.mark.parametrize("name", [f"global_{size}" for size in results.REFERENCE])
def test_a_shipped_global_model_has_as_many_numbers_as_it_says(name):
    metrics = read_metrics(ROOT / "assets" / name)
    claimed, size = metrics["test"], int(name.partition("_")[2])
    assert not config_differences(metrics["config"], parsed(results.runs()[name]))
    assert "-dirty" not in metrics["environment"]["commit"]
    assert (metrics["config"]["beta"], claimed["latent_values"]) == (1, size)
    digits = vae.load_digits("test")
    model = vae.VAE.from_pretrained(ROOT / "assets" / name)
    measured = vae.evaluate(model, digits.images, mean=False, lpips_images=0)
    assert measured["sample"]["mse"] == pytest.approx(claimed["sample"]["mse"], rel=1e-4)
    assert measured["neg_elbo"] == pytest.approx(claimed["neg_elbo"], abs=0.05)


PRIORS = [
    size for size in results.REFERENCE if (ROOT / f"assets/latent_{size}/prior.json").exists()
]


@pytest.mark.parametrize("size", PRIORS)
def test_a_shipped_prior_draws_the_digit_that_it_is_asked_for(size):
    folder = ROOT / "assets" / f"latent_{size}"
    model, prior = vae.VAE.from_pretrained(folder), vae.LatentPrior.from_pretrained(folder)
    assert (folder / "prior.safetensors").stat().st_size <= 4e6
    labels = torch.arange(100) % 10
    images = model.sample(100, labels, torch.Generator().manual_seed(1), prior)
    assert vae.judge_images(images, labels)["accuracy"] >= 0.95  # of 10,000: the next test


def test_what_is_generated_reaches_its_targets():
    rows = results.read_json(ROOT / "assets" / "generation.json")
    prior, noise = rows["latent_4, prior"], rows["latent_4, N(0, I)"]
    assert prior["images"] == noise["images"] == 10_000
    assert prior["fid"] <= 0.05 * noise["fid"]
    assert prior["recognised"] >= 0.93
    assert prior["accuracy"] >= 0.97
    floor = rows["test digits"]["nearest"]
    assert prior["nearest"] > 0.5 * floor  # no copies
