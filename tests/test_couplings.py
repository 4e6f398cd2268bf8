"""The couplings of a global latent: a map, its inverse, and the posterior that they shape."""

import pytest
import torch
from helpers import make
from torch.distributions import Normal

import vae
from vae.data import Digits
from vae.machinery import trainings
from vae.machinery.latents import fit_couplings


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_couplings_are_inverted_exactly_enough(size, classes):
    model = make(latent_size=size, latent_grid=1, num_classes=classes)
    context = model.class_embedding(torch.arange(50) % 10) if classes else None
    u = z = torch.randn(5, size).repeat_interleave(10, 0)
    for coupling in model.couplings:
        u = coupling(u, context)
    assert (u - z).abs().max() > 0.5
    assert len(u.unique(dim=0)) == 50 or not classes  # each label carries a latent elsewhere
    for coupling in reversed(model.couplings):
        with torch.autocast("cpu", torch.bfloat16):
            u, _ = coupling.inverse(u, context)
    assert torch.allclose(u, z, atol=1e-4)


def test_couplings_are_there_where_they_can_be_trained_and_do_something():
    assert vae.VAE(vae.VAEConfig(4, 1)).couplings
    for without in (
        vae.VAEConfig(4),  # on a grid every place would need its own
        vae.VAEConfig(1, 1),
        vae.VAEConfig(4, 1, variational=False),  # nothing would train them
    ):
        assert not vae.VAE(without).couplings
    assert vae.VAEConfig(3, 1).fitted().posterior == "coupled"  # by default, above two values
    assert vae.VAEConfig(2, 1).fitted().posterior == "diagonal"
    on_a_grid = vae.VAEConfig(4, posterior="coupled")  # where there are no couplings
    assert on_a_grid.fitted() == vae.VAEConfig(4).fitted()


@pytest.mark.parametrize("classes", [0, 10])
def test_the_coupled_posterior_is_a_change_of_variables(classes, digits):
    shape = {"latent_size": 5, "latent_grid": 1, "num_classes": classes}
    model = make(**shape, posterior="coupled").double().eval()
    labels = torch.tensor([3, 7]) if classes else None
    token = model.class_embedding(labels)[:, None] if classes else None
    noise = torch.randn(2, 5, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        q = model.encode(digits[:2], labels)
        z, u = q.sample(noise).flatten(1), q.gaussian.sample(noise).flatten(1)
        torch.testing.assert_close(model.couplings(z[..., None, None], token).flatten(1), u,
                                   atol=1e-5, rtol=1e-5)  # fmt: skip
    density = Normal(q.gaussian.mean.flatten(1), q.gaussian.std.flatten(1))
    log_q_of_u, log_p_of_z = density.log_prob(u).sum(1), Normal(0, 1).log_prob(z).sum(1)
    for i in range(2):
        part = None if token is None else token[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda one, part=part: model.couplings(one[None, :, None, None], part).flatten(), z[i]
        )
        volume = torch.linalg.slogdet(jacobian).logabsdet
        nll = model.couplings.marginal_nll(u[i : i + 1, :, None, None], part)
        assert nll.item() == pytest.approx((z[i].square().sum() / 2 + volume).item(), rel=1e-5)
        expected = log_q_of_u[i] + volume - log_p_of_z[i]
        assert q.log_ratio(noise)[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_couplings_both_posteriors_are_the_same_gaussian(digits):
    model = make(latent_size=3, latent_grid=1, couplings=0).eval()
    noise = torch.randn(len(digits), 3, 1, 1)
    with torch.no_grad():
        q = model.encode(digits)
        same = vae.CoupledGaussian(q.gaussian, model.couplings, None)
        assert torch.equal(same.sample(noise), q.sample(noise))
        assert torch.equal(model.couplings(noise), noise)
        torch.testing.assert_close(same.log_ratio(noise), q.log_ratio(noise))
        lengths = noise.square().sum((1, 2, 3))
        expected = q.log_ratio(noise) - 0.5 * (3 - lengths)
        torch.testing.assert_close(same.kl(noise), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 10])
def test_the_fit_at_the_end_is_by_likelihood_and_moves_the_couplings_alone(classes, tiny):
    shape = {"latent_size": 4, "latent_grid": 1, "couplings": 4, "num_classes": classes}
    model, train = make(**shape, posterior="coupled").eval(), vae.load_digits("train")
    seen = Digits(*(part[:600] for part in train))
    labels = seen.labels if classes else None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def measured():
        noise = torch.randn(600, 4, 1, 1, generator=torch.Generator().manual_seed(0))
        images, q = model(vae.scale_images(seen.images), labels, noise)
        return images, q.kl(noise).mean().item(), q.sample(noise).flatten(1)

    images, kl, _ = measured()
    fit_couplings(model, seen, tiny(shape, learning_rate=3e-3), 150)
    for name, tensor in model.state_dict().items():
        moved = name.startswith("couplings.") and "rotation" not in name
        assert torch.equal(tensor, before[name]) != moved, name
    assert not any(parameter.requires_grad for parameter in model.couplings.parameters())
    same, fitted, z = measured()
    assert fitted < 0.7 * kl
    assert torch.equal(images, same)
    assert torch.allclose(torch.cov(z.T), torch.eye(4), atol=0.3)
    assert torch.allclose(z.mean(0), torch.zeros(4), atol=0.3)


@pytest.mark.parametrize("posterior", ["diagonal", "coupled"])
def test_a_training_ends_with_the_fit_and_one_cut_off_there_ends_the_same(
    posterior, tiny, tmp_path, monkeypatch, undrawn
):
    shape = {"latent_size": 2, "latent_grid": 1, "couplings": 2, "posterior": posterior}
    blind = {"w_perceptual": 0.0, "w_adversarial": 0.0, "lpips_images": 0}
    few = {"max_train_images": 64, "batch_size": 32, "frames": 2, "coupling_steps": 3}
    config = tiny(shape, **blind, **few)
    fit, asked = trainings.fit_couplings, []

    def interrupted(*given):
        asked.append(given[-1])
        if len(asked) == 1:
            raise KeyboardInterrupt
        return fit(*given)

    whole = vae.train(config, tmp_path / "whole")
    monkeypatch.setattr(trainings, "fit_couplings", interrupted)
    if posterior == "coupled":
        with pytest.raises(KeyboardInterrupt):
            vae.train(config, tmp_path / "cut")
    cut = vae.train(config, tmp_path / "cut")
    assert asked == [6, 6] * (posterior == "coupled")  # of two steps of training
    rows = cut.metrics["history"]["test"]
    assert [row["step"] for row in rows] == [1, 2, 2] if posterior == "coupled" else [1, 2]
    assert rows[-1]["kl"] == cut.metrics["test"]["kl"] != rows[-2]["kl"]
    torch.testing.assert_close(cut.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
