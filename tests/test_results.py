"""What `assets/` ships: that it beats the reference, and that its numbers are its weights'."""

import importlib.util
import json
from pathlib import Path

import pytest

import vae
from vae.cli import from_flags, parser
from vae.run import read_metrics

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("results", ROOT / "tools" / "results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


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


def test_every_command_of_the_results_is_one_that_trains():
    for flags in results.runs().values():
        parsed = parser().parse_args(["train", *flags.split()])
        config = from_flags(vae.TrainConfig, parsed, model=from_flags(vae.VAEConfig, parsed))
        assert config.beta > 0
        assert config.model.latent_grid == 7


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
