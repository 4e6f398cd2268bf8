"""Tiny trainings at fixed seeds log the losses that stand in fingerprint.json.

Bits differ between processors, so that the losses are held to a tolerance. After a change that is
meant, write them again: python tests/test_fingerprint.py
"""

import json
from pathlib import Path

import pytest
import torch

import vae
from vae.machinery.latents import PriorTrainer

FILE = Path(__file__).with_name("fingerprint.json")
PLAIN = {"w_perceptual": 0.0, "w_adversarial": 0.0, "lpips_images": 0, "learning_rate": 6e-3}
RUNS = {  # the model's settings, the training's
    "7x7, all four terms": ({"latent_size": 2}, {"adversarial_start": 0.0, "beta": 0.5}),
    "1x1, conditional": ({"latent_size": 4, "latent_grid": 1, "num_classes": 10}, PLAIN),
    "1x1, plain": ({"latent_size": 4, "latent_grid": 1, "variational": False},
                   PLAIN | {"beta": 0.0}),
    "7x7, bf16": ({"latent_size": 2}, PLAIN | {"mixed_precision": "bf16"}),
}  # fmt: skip
STEPS = 8


def losses(name: str, folder: Path) -> list[dict]:
    """The terms of each step."""
    torch.set_num_threads(1)
    small = {"channels": (8, 16, 16)}
    if name == "prior":
        vae.VAE(vae.VAEConfig(3, **small)).save_pretrained(folder)
        about = {"config": {"dataset": "mnist", "data_root": "data"}, "history": {}}
        history = {"train": [], "test": []}
        (folder / "metrics.json").write_text(json.dumps(about | {"history": history}))
        model = vae.PriorConfig(3, channels=16, blocks=1)
        config = vae.PriorTrainConfig(model, epochs=1, max_train_images=512)
        torch.manual_seed(0)
        training = PriorTrainer(vae.VAE(vae.VAEConfig(3, **small)).eval(), folder, config)
    else:
        model, options = RUNS[name]
        usual = {"epochs": 1, "max_train_images": 512, "max_test_images": 50, "lpips_images": 0}
        usual |= {"mixed_precision": "no", "projected_images": 50}
        config = vae.TrainConfig(vae.VAEConfig(**small, **model), **(usual | options))
        training = vae.Trainer(config, folder)
    for _ in range(STEPS):
        training.take_step()
    return [{k: v.item() for k, v in terms.items()} for terms in training.log.recent]


@pytest.mark.parametrize("name", [*RUNS, "prior"])
def test_a_tiny_training_logs_the_losses_that_it_logged_before(name, tmp_path):
    expected, tolerance = (
        json.loads(FILE.read_text("utf-8"))[name],
        0.05 if "bf16" in name else 5e-3,
    )
    for step, (now, before) in enumerate(zip(losses(name, tmp_path), expected, strict=True)):
        assert now.keys() == before.keys()
        for term, value in before.items():
            if not term.startswith("accuracy"):  # a share of few patches
                near = pytest.approx(value, rel=tolerance, abs=tolerance / 10)
                assert now[term] == near, (step, term)


if __name__ == "__main__":
    import tempfile

    found = {}
    for run in [*RUNS, "prior"]:
        with tempfile.TemporaryDirectory() as folder:
            found[run] = losses(run, Path(folder))
    FILE.write_text(json.dumps(found, indent=1) + "\n")
