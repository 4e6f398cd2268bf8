"""Tiny trainings at fixed seeds log the losses that stand in fingerprint.json.

Bits differ between processors, so that the losses are held to a tolerance. After a change that is
meant, write them again: python tests/test_fingerprint.py
"""

import json
from pathlib import Path

import pytest
import torch
from helpers import FINISHED, SMALL, advance

import vae
from vae.machinery.latents import PriorTrainer, encode, fit_couplings
from vae.machinery.sharpening import SharpenTrainer

FILE = Path(__file__).with_name("fingerprint.json")
PLAIN = {"w_perceptual": 0.0, "w_adversarial": 0.0, "lpips_images": 0, "learning_rate": 6e-3}
RUNS = {  # the model's settings, the training's
    "7x7, all four terms": ({"latent_size": 2}, {"adversarial_start": 0.0, "beta": 0.5}),
    "1x1, conditional": ({"latent_size": 4, "latent_grid": 1, "num_classes": 10}, PLAIN),
    "1x1, plain": ({"latent_size": 4, "latent_grid": 1, "variational": False},
                   PLAIN | {"beta": 0.0}),
    "7x7, bf16": ({"latent_size": 2}, PLAIN | {"mixed_precision": "bf16"}),
}  # fmt: skip
OTHERS = ("prior", "sharpen", "fit of couplings")
STEPS = 8


def network(**options) -> vae.VAE:
    torch.manual_seed(0)
    return vae.VAE(vae.VAEConfig(channels=SMALL, **options)).eval()


def frozen(folder: Path, **options) -> vae.VAE:
    """A finished VAE, in `folder` and as it is returned."""
    network(**options).save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(FINISHED))
    return network(**options)


def fitted(steps: int) -> list[dict]:
    """The marginal KL of some codes, up to a constant, before and after the fit of couplings."""
    model = network(latent_size=4, latent_grid=1, num_classes=10)
    digits = vae.load_digits("train")
    digits = type(digits)(*(part[:512] for part in digits))
    config = vae.with_budget(vae.TrainConfig(model.config, epochs=1, batch_size=32))

    @torch.no_grad()
    def marginal() -> dict[str, float]:
        mean, _, labels = encode(model, *digits)
        nll = model.couplings.marginal_nll(mean, model.class_token(labels, len(mean)))
        return {"marginal": nll.mean().item()}

    before = marginal()
    fit_couplings(model, digits, config, steps)
    return [before, marginal()]


def losses(name: str, folder: Path) -> list[dict]:
    """The terms of each step."""
    torch.set_num_threads(1)
    few = {"epochs": 1, "max_train_images": 512}
    if name == "fit of couplings":
        return fitted(STEPS)
    if name == "prior":
        config = vae.PriorTrainConfig(vae.PriorConfig(3, channels=16, blocks=1), **few)
        training = PriorTrainer(frozen(folder, latent_size=3), folder, config)
    elif name == "sharpen":
        few |= {"batch_size": 32, "lpips_images": 0, "perceptual_share": 0.05, "frames": 1}
        model = frozen(folder, latent_size=3, latent_grid=1)
        training = SharpenTrainer(model, folder, folder / "sharp", vae.SharpenConfig(**few))
    else:
        model, options = RUNS[name]
        few |= {"max_test_images": 50, "lpips_images": 0, "projected_images": 50}
        config = vae.TrainConfig(vae.VAEConfig(channels=SMALL, **model), **(few | options))
        training = vae.Trainer(config, folder)
    recent = advance(training, STEPS).recent
    return [{k: v.item() for k, v in terms.items()} for terms in recent]


@pytest.mark.usefixtures("wide_networks")
@pytest.mark.parametrize("name", [*RUNS, *OTHERS])
def test_a_tiny_training_logs_the_losses_that_it_logged_before(name, tmp_path):
    expected = json.loads(FILE.read_text("utf-8"))[name]
    tolerance = 0.05 if "bf16" in name else 5e-3
    for step, (now, before) in enumerate(zip(losses(name, tmp_path), expected, strict=True)):
        assert now.keys() == before.keys()
        for term, value in before.items():
            if not term.startswith("accuracy"):  # a share of few patches
                near = pytest.approx(value, rel=tolerance, abs=tolerance / 10)
                assert now[term] == near, (step, term)


if __name__ == "__main__":
    import tempfile

    found = {}
    for run in [*RUNS, *OTHERS]:
        with tempfile.TemporaryDirectory() as folder:
            found[run] = losses(run, Path(folder))
    FILE.write_text(json.dumps(found, indent=1) + "\n")
