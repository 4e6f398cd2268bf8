"""The couplings of a global latent: a map, its inverse, and the posterior that they shape."""

import pytest
import torch
from helpers import make

import vae
from vae.couplings import Couplings
from vae.data import Digits
from vae.machinery import trainings
from vae.machinery.latents import fit_couplings


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_couplings_are_inverted_exactly_enough(size, classes):
    model = make(latent_size=size, latent_grid=1, num_classes=classes)
    context = model.class_embedding(torch.arange(50) % 10) if classes else None
    z = torch.randn(50, size)
    u = z
    for coupling in model.couplings:
        u = coupling(u, context)
    assert (u - z).abs().max() > 0.5
    for coupling in reversed(model.couplings):
        with torch.autocast("cpu", torch.bfloat16):
            u, _ = coupling.inverse(u, context)
    assert torch.allclose(u, z, atol=1e-4)


def test_a_label_decides_where_couplings_carry_a_latent():
    model = make(latent_size=4, latent_grid=1, num_classes=10).eval()
    z = torch.randn(1, 4, 1, 1).expand(10, -1, -1, -1)
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.decode(z, torch.arange(10))
    assert len(seen[0].flatten(1).unique(dim=0)) == 10


def test_couplings_move_latents_and_no_reconstruction(digits):
    model = make(latent_size=4, latent_grid=1, posterior="coupled").eval()
    noise = torch.randn(len(digits), 4, 1, 1)
    with torch.no_grad():
        before, images = model.encode(digits), model(digits, noise=noise)[0]
        torch.testing.assert_close(model.decode(before.sample(noise)), images, atol=1e-4, rtol=0)
        mean = before.mean
        for parameter in model.couplings.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        after = model.encode(digits)
        assert (after.mean - mean).abs().mean() > 0.1
        assert torch.equal(after.gaussian.logvar, before.gaussian.logvar)
        assert torch.equal(model(digits, noise=noise)[0], images)
    kl = model.encode(digits).kl(noise).sum()
    gradient = torch.autograd.grad(kl, list(model.couplings.parameters()))
    assert all(g.any() for g in gradient)
    assert not vae.VAE(vae.VAEConfig(4)).couplings  # on a grid every place would need its own
    assert not vae.VAE(vae.VAEConfig(1, 1)).couplings
    plain = vae.VAEConfig(4, 1, variational=False)
    assert not vae.VAE(plain).couplings  # nothing would train them


def log_normal(z):
    return torch.distributions.Normal(0, 1).log_prob(z.double()).sum(1)


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
    density = torch.distributions.Normal(q.gaussian.mean, q.gaussian.std)
    log_q_of_u = density.log_prob(u[..., None, None]).flatten(1).sum(1)
    for i in range(2):
        part = None if token is None else token[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda one, part=part: model.couplings(one[None, :, None, None], part).flatten(), z[i]
        )
        log_q_of_z = log_q_of_u[i] + torch.linalg.slogdet(jacobian).logabsdet
        with torch.no_grad():
            nll = model.couplings.marginal_nll(u[i : i + 1, :, None, None], part)
        volume = torch.linalg.slogdet(jacobian).logabsdet
        assert nll.item() == pytest.approx((z[i].square().sum() / 2 + volume).item(), rel=1e-5)
        expected = log_q_of_z - log_normal(z[i : i + 1])[0]
        assert q.log_ratio(noise)[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_kl_of_a_coupled_posterior_is_the_average_of_its_log_ratio(digits):
    model = make(latent_size=3, latent_grid=1, posterior="coupled").eval()
    with torch.no_grad():
        q = model.encode(digits[:1]).expand(20_000)
        noise = torch.randn(20_000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        drawn, estimate = q.log_ratio(noise), q.kl(noise)
    assert drawn.mean().item() == pytest.approx(estimate.mean().item(), abs=0.05)
    with torch.no_grad():
        narrow = vae.CoupledGaussian(
            vae.DiagonalGaussian(q.gaussian.mean, q.gaussian.logvar - 9), model.couplings, None
        )
        assert narrow.kl(noise).std() < narrow.log_ratio(noise).std()  # its entropy is known


def test_without_couplings_both_posteriors_are_the_same_gaussian(digits):
    model = make(latent_size=3, latent_grid=1, couplings=0).eval()
    noise = torch.randn(len(digits), 3, 1, 1)
    with torch.no_grad():
        q = model.encode(digits)
        same = vae.CoupledGaussian(q.gaussian, model.couplings, None)
        assert torch.equal(same.sample(noise), q.sample(noise))
        torch.testing.assert_close(same.log_ratio(noise), q.log_ratio(noise))
        lengths = noise.square().sum((1, 2, 3))
        expected = q.log_ratio(noise) - 0.5 * (3 - lengths)
        torch.testing.assert_close(same.kl(noise), expected, rtol=1e-4, atol=1e-4)


def test_the_kl_makes_codes_of_any_shape_normal():
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(2, 1, channels=(8, 16, 16), couplings=4))
    u = torch.randn(500, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.2]]) + torch.tensor([2.0, 0.0])
    points = vae.DiagonalGaussian(u[..., None, None], torch.full((500, 2, 1, 1), -12.0))
    optimizer = torch.optim.Adam(model.couplings.parameters(), 0.003)
    for _ in range(200):
        optimizer.zero_grad()
        vae.CoupledGaussian(points, model.couplings, None).kl().mean().backward()
        optimizer.step()
    z = vae.CoupledGaussian(points, model.couplings, None).mean.flatten(1).detach()
    assert torch.allclose(torch.cov(z.T), torch.eye(2), atol=0.2)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=0.2)


def test_without_couplings_the_map_is_the_identity():
    z = torch.randn(3, 2, 1, 1)
    none = Couplings()
    assert none(z) is z
    same, log_det = none.inverse(z)
    assert torch.equal(same, z)
    assert torch.equal(log_det, torch.zeros(3))


def test_a_diagonal_posterior_is_a_gaussian_on_the_priors_side(digits):
    model = make(latent_size=4, latent_grid=1, posterior="diagonal").eval()
    noise = torch.randn(len(digits), 4, 1, 1)
    with torch.no_grad():
        q = model.encode(digits)
        assert isinstance(q, vae.DiagonalGaussian)
        images, _ = model(digits, noise=noise)
        torch.testing.assert_close(model.decode(q.mean + q.std * noise), images)
    assert vae.VAEConfig(3, 1).fitted().posterior == "coupled"  # by default, above two values
    assert vae.VAEConfig(2, 1).fitted().posterior == "diagonal"
    on_a_grid = vae.VAEConfig(4, posterior="coupled")  # where there are no couplings
    assert on_a_grid.fitted() == vae.VAEConfig(4).fitted()


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
        q = model.encode(vae.scale_images(seen.images), labels)
        return q.kl(noise).mean().item(), model(vae.scale_images(seen.images), labels, noise)[0]

    kl, images = measured()
    config = tiny(shape, learning_rate=3e-3)
    fit_couplings(model, seen, config, 150)
    for name, tensor in model.state_dict().items():
        moved = name.startswith("couplings.") and "rotation" not in name
        assert torch.equal(tensor, before[name]) != moved, name
    assert not any(parameter.requires_grad for parameter in model.couplings.parameters())
    fitted, same = measured()
    assert fitted < 0.7 * kl
    assert torch.equal(images, same)
    with torch.no_grad():
        q = model.encode(vae.scale_images(seen.images), labels)
        z = q.sample(torch.randn(600, 4, 1, 1)).flatten(1)
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
    for ours, theirs in zip(cut.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
