"""The learned prior: its flow against a closed form, its training, and what it refuses."""

import itertools
import json

import pytest
import torch
from helpers import FINISHED, interrupt_at, small_prior
from torch import nn

import vae
from vae import step
from vae.machinery import loop
from vae.machinery.cli import main
from vae.machinery.latents import PriorTrainer
from vae.pretrained import read_json, sha256
from vae.prior import LatentPrior, PriorConfig

MEAN, STD = 1.5, 0.4  # of standardised latents in the closed form


class GaussianFlow(LatentPrior):
    """A prior whose velocity is exact for latents that are all N(MEAN, STD^2)."""

    def forward(self, z, t, labels):
        t = t[:, None, None, None]
        variance = (1 - t) ** 2 + (t * STD) ** 2
        return MEAN + (t * STD**2 - (1 - t)) / variance * (z - t * MEAN)


def test_following_the_exact_velocity_gives_the_data():
    prior = GaussianFlow(PriorConfig(latent_size=2))
    prior.mean[:], prior.std[:] = 10, torch.tensor([3.0, 5.0])[:, None, None]
    z = prior.sample(2000, generator=torch.Generator().manual_seed(0))
    z = (z - 10) / prior.std  # from the encoder's units
    assert z.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert z.std().item() == pytest.approx(STD, rel=0.02)
    fine = prior.sample(50, noise=torch.ones(50, 2, 7, 7), steps=200)
    expected = 10 + prior.std * (MEAN + STD)  # the flow of a Gaussian keeps each quantile
    assert torch.allclose(fine, expected.expand(50, 2, 7, 7), atol=1e-2)


def test_the_loss_is_that_of_straight_lines_between_noise_and_standardised_latents():
    class Probe(LatentPrior):
        def forward(self, z, t, labels):
            return (z - noise) / t[:, None, None, None]  # exact: the whole line is known

    noise, latents = torch.randn(2, 5, 4, 7, 7)
    prior = Probe()
    prior.mean[:], prior.std[:] = 2, 3
    t = torch.linspace(0.1, 1, 5)
    assert prior.loss(latents, noise, t, torch.zeros(5, dtype=torch.int64)) < 1e-9
    assert prior.loss(latents + 1, noise, t, torch.zeros(5, dtype=torch.int64)) < 1e-9


def test_guidance_moves_away_from_any_class():
    torch.manual_seed(0)
    prior = LatentPrior(PriorConfig(channels=16, blocks=1))
    nn.init.normal_(prior.conv_out.weight)
    nn.init.normal_(prior.blocks[0].residual1.to_scale_and_shift.weight, std=0.3)
    nn.init.normal_(prior.blocks[0].residual1.conv2.weight, std=0.3)
    noise, labels = torch.randn(3, 4, 7, 7), torch.tensor([0, 1, 2])
    one = {"noise": noise, "steps": 1}
    with torch.no_grad():
        zero = torch.zeros(3)
        v, v_any = prior(noise, zero, labels), prior(noise, zero, torch.full((3,), 10))
        assert not torch.allclose(v, v_any)
        wanted = v_any + 2.5 * (v - v_any)
        guided = noise + wanted
        at_end = torch.ones(3)
        w, w_any = prior(guided, at_end, labels), prior(guided, at_end, torch.full((3,), 10))
        expected = noise + (wanted + w_any + 2.5 * (w - w_any)) / 2
    assert torch.allclose(prior.sample(3, labels, guidance=2.5, **one), expected, atol=1e-4)


def test_a_seed_decides_the_draw_and_labels_change_it():
    torch.manual_seed(0)
    prior = LatentPrior(PriorConfig(channels=16, blocks=1))
    nn.init.normal_(prior.conv_out.weight)
    nn.init.normal_(prior.blocks[0].residual2.to_scale_and_shift.weight)
    nn.init.normal_(prior.blocks[0].residual2.conv2.weight, std=0.3)

    def draw(seed, labels=None):
        return prior.sample(4, labels, torch.Generator().manual_seed(seed), steps=2)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    zeros = torch.zeros(4, dtype=torch.int64)
    assert not torch.equal(draw(1, zeros), draw(1, zeros + 1))


def test_what_is_not_asked_for_is_drawn_and_the_config_guides():
    torch.manual_seed(0)
    prior = LatentPrior(PriorConfig(channels=16, blocks=1, guidance=3.0))
    for parameter in prior.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    noise, labels = torch.randn(5, 4, 7, 7), torch.arange(5)
    drawn = [prior.sample(5, labels, noise=noise, guidance=w, steps=1) for w in (None, 3.0, 1.0)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3)

    seen = []
    prior.forward = lambda z, t, labels: (seen.append(labels), 0 * z)[1]
    prior.sample(2000, generator=torch.Generator().manual_seed(0), guidance=1, steps=1)
    counts = torch.cat(seen).bincount(minlength=10)
    assert len(counts) == 10
    assert (counts > 300).all()  # of 400: each is asked for twice
    seen.clear()
    prior.sample(1200, torch.arange(1200) % 10, guidance=1, steps=1)
    assert torch.equal(torch.cat(seen[::2]), torch.arange(1200) % 10)


def test_a_prior_learns_and_leaves_the_vae_as_it_is(folder):
    before = sha256((folder / "model.safetensors").read_bytes())
    prior = vae.train_prior(folder, small_prior(epochs=6, max_train_images=1000))
    metrics = read_json(folder / "prior_metrics.json", "metrics")
    losses = [row["loss"] for row in metrics["history"]["test"]]
    assert losses[-1] < 0.9 * losses[0] < 2
    assert sha256((folder / "model.safetensors").read_bytes()) == before
    assert not (folder / "prior_checkpoint.safetensors").exists()
    assert (folder / "prior_samples.png").is_file()

    model = vae.VAE.from_pretrained(folder)
    images, labels = (part[:1000] for part in vae.load_digits("train"))
    with torch.no_grad():
        q = model.encode(vae.scale_images(images))
    standard = (q.sample() - prior.mean) / prior.std
    assert torch.allclose(standard.mean((0, 2, 3)), torch.zeros(3), atol=0.02)
    assert torch.allclose(standard.std((0, 2, 3)), torch.ones(3), atol=0.02)

    again = vae.LatentPrior.from_pretrained(folder)
    g = (torch.Generator().manual_seed(3) for _ in itertools.count())
    drawn = model.sample(2, labels[:2], next(g), prior)
    assert torch.equal(drawn, model.sample(2, labels[:2], next(g), again))
    assert drawn.shape == (2, 1, 28, 28)
    assert not torch.equal(drawn, model.sample(2, generator=next(g)))


def test_labels_are_withheld_as_often_as_asked(folder):
    trainer = PriorTrainer(
        vae.VAE.from_pretrained(folder),
        folder,
        small_prior(label_dropout=0.25, max_train_images=2000),
    )
    seen = []

    def spy(latents, noise, t, labels):
        seen.append((latents, t, labels))
        return latents.sum()

    trainer.prior.loss = spy
    drawn = trainer.draw(len(trainer.train_set[0]), torch.Generator().manual_seed(0))
    step.flow_loss(trainer.prior, *trainer.train_set, *drawn)
    ((latents, t, labels),) = seen
    mean, std, _ = trainer.train_set
    assert ((latents - mean) / std).std().item() == pytest.approx(1, abs=0.02)  # draws of q(z|x)
    assert 0.2 < (labels == 10).double().mean() < 0.3
    kept = labels != 10
    assert torch.equal(labels[kept], trainer.train_set[2][kept])
    assert t.min() > 0
    assert t.max() < 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_prior_that_was_cut_off_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    whole = vae.train_prior(folder, small_prior())
    for name in ("prior.json", "prior.safetensors", "prior_metrics.json"):
        (folder / name).unlink()
    take_step = PriorTrainer.take_step

    def interrupted(self):
        take_step(self)
        if self.steps_done == 13:
            raise RuntimeError("cut")

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(PriorTrainer, "take_step", interrupted)
    with pytest.raises(RuntimeError, match="cut"):
        vae.train_prior(folder, small_prior())
    monkeypatch.setattr(PriorTrainer, "take_step", take_step)
    with pytest.raises(ValueError, match="cut off: resume it"):
        vae.train_prior(folder, small_prior(), resume=False)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        vae.train_prior(folder, small_prior(seed=1))
    resumed = vae.train_prior(folder, small_prior())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match=r"epochs 2 there, 3 here.*delete prior_metrics\.json"):
        vae.train_prior(folder, small_prior(epochs=3))
    vae.VAE(vae.VAEConfig(3, channels=(8, 16, 16))).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"a VAE that has changed .* delete prior_metrics\.json"):
        vae.train_prior(folder, small_prior())


@pytest.mark.unix
def test_ctrl_c_ends_the_command_with_code_130_and_resume_is_asked_for(folder, monkeypatch, capsys):
    interrupt_at(monkeypatch, 3)
    flags = [
        "--channels",
        "16",
        "--blocks",
        "1",
        "--epochs",
        "1",
        "--max-train-images",
        "160",
        "--batch-size",
        "32",
    ]
    assert main(["train-prior", str(folder), *flags]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (folder / "prior_metrics.json").exists()
    assert main(["train-prior", str(folder), *flags]) == 2
    assert "holds a training of a prior that was cut off" in capsys.readouterr().err
    assert main(["train-prior", str(folder), *flags, "--resume"]) == 0
    assert vae.LatentPrior.from_pretrained(folder).config.channels == 16


def test_what_has_no_prior_is_refused(folder, capsys):
    with pytest.raises(ValueError, match=r"batch_size=400 is not allowed: .* at most the 320"):
        vae.train_prior(folder, small_prior(batch_size=400))
    for classes in (5, 20):
        with pytest.raises(ValueError, match=rf"num_classes={classes} is not allowed.*10 classes"):
            vae.train_prior(folder, vae.PriorTrainConfig(PriorConfig(num_classes=classes)))
    with pytest.raises(ValueError, match="channels=12 is not allowed: a multiple of 8"):
        PriorConfig(channels=12)
    vae.VAE(vae.VAEConfig(3, 1, channels=(8, 16, 16))).save_pretrained(folder)
    assert main(["train-prior", str(folder)]) == 2
    assert "latent_grid=1 needs no learned prior" in capsys.readouterr().err
    cut_off = {key: value for key, value in FINISHED.items() if key != "test"}
    (folder / "metrics.json").write_text(json.dumps(cut_off))
    vae.VAE(vae.VAEConfig(3, channels=(8, 16, 16))).save_pretrained(folder)
    assert main(["train-prior", str(folder)]) == 2
    assert "a VAE whose training was cut off: finish it first" in capsys.readouterr().err

    prior, model = LatentPrior(), vae.VAE(vae.VAEConfig(3))
    with pytest.raises(ValueError, match=r"prior draws latents \(4, 7, 7\); \(3, 7, 7\)"):
        model.sample(2, prior=prior)
    for options, message in (
        ({"labels": torch.zeros(2)}, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 10])}, "labels from 0 to 9 are expected, not 0 to 10"),
        ({"noise": torch.zeros(2, 3, 7, 7)}, "noise has shape"),
        ({"guidance": -1.0}, "guidance=-1.0"),
        ({"steps": 0}, "steps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            prior.sample(2, **options)


def test_a_prior_trains_in_bf16_and_a_loss_that_is_not_finite_is_named(folder, monkeypatch):
    model = vae.VAE.from_pretrained(folder)
    trainer = PriorTrainer(model, folder, small_prior(mixed_precision="bf16"))
    trainer.take_step()
    trainer.take_step()
    assert all(value.isfinite() for terms in trainer.log.recent for value in terms.values())
    draw = PriorTrainer.draw

    def poisoned(self, n, generator):
        drawn = draw(self, n, generator)
        return (drawn[0] * (float("nan") if self.steps_done == 2 else 1), *drawn[1:])

    monkeypatch.setattr(PriorTrainer, "draw", poisoned)
    with pytest.raises(FloatingPointError, match="loss is nan at step 3"):
        vae.train_prior(folder, small_prior())
