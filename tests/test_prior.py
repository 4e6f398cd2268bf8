"""The learned prior: its flow against a closed form, its training, and what it refuses."""

import json

import pytest
import torch
from helpers import FINISHED, advance, interrupt_at, make_prior, small_prior

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
    prior, noise, labels = make_prior(), torch.randn(3, 4, 7, 7), torch.tensor([0, 1, 2])

    def guided(z, t):
        digits_and_any = labels, torch.full((3,), 10)
        v, v_any = (prior(z, torch.full((3,), t), given) for given in digits_and_any)
        assert not torch.allclose(v, v_any)
        return v_any + 2.5 * (v - v_any)

    with torch.no_grad():
        first = guided(noise, 0.0)
        expected = noise + (first + guided(noise + first, 1.0)) / 2
    drawn = prior.sample(3, labels, noise=noise, steps=1, guidance=2.5)
    assert torch.allclose(drawn, expected, atol=1e-4)


def test_what_is_not_asked_for_is_drawn_and_the_config_guides():
    prior, noise, labels = make_prior(guidance=3.0), torch.randn(5, 4, 7, 7), torch.arange(5)
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

    again, seeded = vae.LatentPrior.from_pretrained(folder), torch.Generator().manual_seed
    drawn = model.sample(2, labels[:2], seeded(3), prior)
    assert torch.equal(drawn, model.sample(2, labels[:2], seeded(3), again))
    assert drawn.shape == (2, 1, 28, 28)
    for other in (model.sample(2, labels[:2], seeded(4), prior), model.sample(2, None, seeded(3))):
        assert not torch.equal(drawn, other)


def test_labels_are_withheld_as_often_as_asked(folder):
    config = small_prior(label_dropout=0.25, max_train_images=2000)
    trainer = PriorTrainer(vae.VAE.from_pretrained(folder), folder, config)
    trainer.prior.loss = lambda *given: given
    drawn = trainer.draw(len(trainer.train_set[0]), torch.Generator().manual_seed(0))
    latents, _, t, labels = step.flow_loss(trainer.prior, *trainer.train_set, *drawn)
    mean, std, _ = trainer.train_set
    assert ((latents - mean) / std).std().item() == pytest.approx(1, abs=0.02)  # draws of q(z|x)
    assert 0.2 < (labels == 10).double().mean() < 0.3
    kept = labels != 10
    assert torch.equal(labels[kept], trainer.train_set[2][kept])
    assert t.min() > 0
    assert t.max() < 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_prior_that_was_cut_off_goes_on_to_the_same_weights(folder):
    whole = vae.train_prior(folder, small_prior())
    for name in ("prior.json", "prior.safetensors", "prior_metrics.json"):
        (folder / name).unlink()
    cut = PriorTrainer(vae.VAE.from_pretrained(folder), folder, small_prior())
    loop.save(advance(cut, 12))
    with pytest.raises(ValueError, match="cut off: resume it"):
        vae.train_prior(folder, small_prior(), resume=False)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        vae.train_prior(folder, small_prior(seed=1))
    resumed = vae.train_prior(folder, small_prior())
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"epochs 2 there, 3 here.*delete prior_metrics\.json"):
        vae.train_prior(folder, small_prior(epochs=3))
    vae.VAE(vae.VAEConfig(3, channels=(8, 16, 16))).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"a VAE that has changed .* delete prior_metrics\.json"):
        vae.train_prior(folder, small_prior())


@pytest.mark.unix
def test_ctrl_c_ends_the_command_with_code_130_and_resume_is_asked_for(folder, monkeypatch, capsys):
    interrupt_at(monkeypatch, 3)
    flags = "--channels 16 --blocks 1 --epochs 1 --max-train-images 160 --batch-size 32"
    command = f"train-prior {folder} {flags}".split()
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (folder / "prior_metrics.json").exists()
    assert main(command) == 2
    assert "holds a training of a prior that was cut off" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert vae.LatentPrior.from_pretrained(folder).config.channels == 16


def test_what_has_no_prior_is_refused(folder, capsys):
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
    with pytest.raises(ValueError, match=r"prior draws latents \(4, 7, 7\); \(3, 7, 7\)"):
        vae.VAE(vae.VAEConfig(3)).sample(2, prior=LatentPrior())
