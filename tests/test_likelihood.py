"""The Bernoulli likelihood: its images, its loss, its training, and bounds of log p(x)."""

import math
from dataclasses import replace

import measures as tool
import pytest
import torch
import torch.nn.functional as F
from helpers import draw_nothing, interrupt_at, make
from torch import nn
from torch.distributions import MultivariateNormal

import vae
from vae import losses, step
from vae.data import binarise
from vae.machinery import latents
from vae.machinery.cli import main
from vae.machinery.config import run_name, with_budget

BERNOULLI = {"likelihood": "bernoulli", "latent_grid": 1}


def test_a_pixel_is_white_as_often_as_its_grey_says_and_black_and_white_stay_so():
    torch.manual_seed(0)
    grey = torch.linspace(-1, 1, 9)
    x = grey.expand(20_000, -1)
    drawn = binarise(x, torch.rand(x.shape))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(drawn.mean(0), grey, atol=0.03)
    extremes = torch.tensor([0.0, 0.0, 1 - 2**-24, 1 - 2**-24])  # of uniform numbers in float32
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.tensor([-1.0, 1.0], dtype=dtype).repeat(2)
        assert torch.equal(binarise(x, extremes), x)


def test_bernoulli_nll_is_the_cross_entropy_of_an_image():
    torch.manual_seed(0)
    y = 1.99 * torch.rand(5, 1, 28, 28, dtype=torch.float64) - 0.99
    x = 2.0 * (torch.rand(y.shape) < 0.3).double() - 1
    cross_entropy = F.binary_cross_entropy((1 + y) / 2, (1 + x) / 2, reduction="none")
    found = losses.bernoulli_nll(x, y)
    torch.testing.assert_close(found, cross_entropy.sum((1, 2, 3)), rtol=1e-4, atol=0)
    both = (losses.bernoulli_nll(torch.full_like(y, pixel), y) for pixel in (1.0, -1.0))
    torch.testing.assert_close(losses.bernoulli_nll(torch.zeros_like(y), y), sum(both) / 2)


def test_bernoulli_nll_and_its_gradient_are_finite_where_tanh_saturates():
    a = torch.tensor([-100.0, -8.0, -4.0, 4.0, 8.0, 100.0]).view(1, 1, 1, 6).requires_grad_()
    white = torch.ones_like(a)
    (cost,) = losses.bernoulli_nll(white, torch.tanh(a))
    (slope,) = torch.autograd.grad(cost, a)
    assert cost.item() == pytest.approx(2 * 14.56 + 8 - math.log1p(-1e-8), abs=1)
    assert slope.isfinite().all()
    exact = -2 * torch.sigmoid(-2 * a.detach())  # of -log sigmoid(2a)
    torch.testing.assert_close(slope[..., 2:4], exact[..., 2:4], rtol=1e-2, atol=1e-6)
    assert slope[..., 1] < -0.1  # it still pulls where the logit is -16
    assert losses.bernoulli_nll(-white, torch.tanh(a)).isfinite()


def test_half_precision_keeps_probabilities_near_0_apart():
    model = make(latent_size=2, **BERNOULLI)
    nn.init.zeros_(model.decoder.conv_out.weight)
    z = torch.zeros(1, 2, 1, 1)
    for black in (-4.0, -5.0):
        nn.init.constant_(model.decoder.conv_out.bias, black)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y = model.decode(z)
        assert ((1 + y) / 2).log().mean().item() == pytest.approx(2 * black, abs=0.1)


def test_each_step_draws_its_own_black_and_white_images(tiny, tmp_path, monkeypatch):
    config = tiny({"latent_size": 2, **BERNOULLI}, max_train_images=8, batch_size=8, epochs=400)
    trainer, seen = vae.Trainer(config, tmp_path), []
    monkeypatch.setattr(step, "vae_step", lambda t, x, *others: seen.append(x))
    grey = vae.scale_images(trainer.train_set.images)
    for trainer.steps_done in (*range(400), 3):
        trainer.step_on(*trainer.batch())
    *seen, again = seen
    drawn = torch.stack(seen)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    difference = drawn.mean((0, 1)) - grey.mean(0)  # of 3,200 images
    assert difference.abs().max() < 0.08
    unsure = (grey.abs() < 0.8).any(0)
    assert (drawn.sum(1).var(0)[unsure] > 0).all()
    assert torch.equal(again, drawn[3])


def test_the_step_has_the_gradient_of_the_bernoullis_elbo(tiny, tmp_path):
    config = tiny({"latent_size": 2, **BERNOULLI}, beta=0.7, w_marginal=0.0)
    trainer = vae.Trainer(config, tmp_path)
    model = trainer.model
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, labels, noise, drawn = trainer.batch()
    x = binarise(x, drawn)
    loss, terms, _ = step.vae_loss(trainer, x, labels, noise)
    y, posterior = model(x, None, noise)
    nll = F.binary_cross_entropy((1 + y) / 2, (1 + x) / 2, reduction="sum") / len(x)
    assert terms.keys() == {"nll", "kl"}
    assert terms["nll"].item() == pytest.approx(nll.item(), rel=1e-4)
    elbo = (nll + 0.7 * posterior.kl(noise).mean()) / 784
    found, wanted = (torch.autograd.grad(one, [*model.parameters()]) for one in (loss, elbo))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_evaluate_measures_the_elbo_of_binarised_images():
    model, images = make(latent_size=2, **BERNOULLI), vae.load_digits("test").images[:40]
    found = vae.evaluate(model, images, lpips_images=0, batch_size=7, reference=True)
    generator = torch.Generator().manual_seed(0)
    x = model.observed(vae.scale_images(images), generator)
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    noise = torch.randn(40, 2, 1, 1, generator=generator)
    with torch.no_grad():
        y, posterior = model(x, None, noise)
    nll = F.binary_cross_entropy((1 + y) / 2, (1 + x) / 2, reduction="sum") / 40
    assert found["neg_elbo"] == pytest.approx((nll + posterior.kl(noise).mean()).item(), rel=1e-4)
    assert found["sample"]["mse"] == pytest.approx((x - y).square().mean().item(), rel=1e-4)
    assert vae.evaluate(model, x, lpips_images=0, batch_size=7, reference=True) == found


@torch.no_grad()
def test_codes_are_of_binarised_images():
    model, (images, labels) = make(latent_size=3, **BERNOULLI), vae.load_digits("test")
    mean, *_ = latents.encode(model, images[:30], labels[:30])
    grey = vae.scale_images(images[:30])
    x = model.observed(grey, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean, model.encode(x).gaussian.mean)
    assert not torch.allclose(mean, model.encode(grey).gaussian.mean)


def test_a_bernoulli_has_no_distortion_and_by_default_no_discriminator():
    config = vae.TrainConfig(vae.VAEConfig(likelihood="bernoulli"))
    for name, value in (("w_perceptual", 0.05), ("w_mse", 0.5), ("w_mse", 0.0)):
        with pytest.raises(ValueError, match=f"{name}={value}.* with likelihood='bernoulli'"):
            replace(config, **{name: value})
    assert run_name(config) == "latent_2_bernoulli"
    decided = with_budget(config, "full")
    assert (decided.epochs, decided.w_perceptual, decided.w_adversarial) == (3, 0, 0)
    assert with_budget(replace(config, w_adversarial=0.2), "full").w_adversarial == 0.2
    assert with_budget(vae.TrainConfig(), "full").w_perceptual == 0.05


def test_a_bernoulli_is_trained_measured_drawn_and_taken_up_again(
    tiny, tmp_path, monkeypatch, capsys, unpainted
):
    few = {"max_train_images": 64, "batch_size": 8, "lpips_images": 0, "frames": 2}
    config = tiny({"latent_size": 3, **BERNOULLI}, **few)
    whole = vae.train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        draw_nothing(patched)
        interrupt_at(patched, 5)
        assert vae.train(config, tmp_path / "cut").metrics["interrupted"] == 5
        cut = vae.train(config, tmp_path / "cut")
    torch.testing.assert_close(cut.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert cut.metrics["test"] == whole.metrics["test"]
    for picture in ("reconstruction.gif", "latent.gif", "samples.png", "test_metrics.png"):
        assert (whole.directory / picture).is_file()
    assert main(["evaluate", str(whole.directory)]) == 0
    said = capsys.readouterr().out  # scikit-image's numbers, beside ours
    assert float(said.partition("in MSE, SSIM, PSNR, KL: ")[2]) < 1e-12
    with pytest.raises(ValueError, match="likelihood='bernoulli' has no distortion to sharpen"):
        vae.sharpen(whole.directory)


@pytest.mark.parametrize("likelihood", ["bernoulli", "calibrated"])
@torch.no_grad()
def test_the_bound_of_many_samples_is_the_likelihood_by_quadrature(likelihood, digits):
    """log p(x) is a sum over a fine grid of the plane of latents."""
    variance, posterior = (None, "diagonal") if likelihood == "bernoulli" else (0.7, "coupled")
    model = make(latent_size=2, latent_grid=1, likelihood=likelihood, posterior=posterior)
    model.decoder.conv_out.weight.data *= 0.3  # so that all of q's samples matter
    x = model.observed(digits[:2], torch.Generator().manual_seed(1))

    def gaussian_nll(a, b):
        squares = (a - b).square().flatten(1).sum(1)
        return 392 * math.log(2 * math.pi * variance) + squares / (2 * variance)

    nll, axis = gaussian_nll if variance else losses.bernoulli_nll, torch.linspace(-5, 5, 41)
    z = torch.cartesian_prod(axis, axis)
    y = model.decode(z.view(-1, 2, 1, 1)).double()
    prior = -0.5 * z.double().square().sum(1) - math.log(2 * math.pi)
    given = torch.stack([-nll(one.double().expand(len(y), -1, -1, -1), y) for one in x])
    exact = torch.logsumexp(given + prior, 1) + 2 * math.log(10 / 40)
    many = vae.importance_weighted_bound(model, x, variance, samples=2000)
    assert torch.allclose(many, exact, atol=0.1)
    if likelihood == "bernoulli":
        by_product = tool.plane_sum(model, x, step=0.25)
        torch.testing.assert_close(by_product, exact, rtol=0, atol=0.01)


class Linear(nn.Module):
    """A decoder whose images are W z + b."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(784, 2))
        self.position = nn.Parameter(0.3 * torch.randn(784))  # where a model looks for its device

    def forward(self, z, token):
        return (z.flatten(1) @ self.weight.T + self.position).view(-1, 1, 28, 28)


def test_the_bound_of_a_linear_gaussian_model_is_its_likelihood_in_closed_form():
    model = make(latent_size=2, latent_grid=1, couplings=0)
    model.decoder = linear = Linear()
    x, variance = 2 * torch.rand(4, 1, 28, 28) - 1, 0.5
    w, b = linear.weight.double(), linear.position.double()
    covariance = w @ w.T + variance * torch.eye(784, dtype=torch.float64)
    exact = MultivariateNormal(b, covariance).log_prob(x.double().flatten(1))
    bound = vae.importance_weighted_bound(model, x, variance, samples=2000)
    assert torch.allclose(bound, exact, atol=0.1)
    q = model.encode(x)  # from one sample for each, the bound is the ELBO
    error = x.flatten(1) - q.mean.flatten(1) @ linear.weight.T - linear.position
    squares = error.square().sum(1) + q.std.flatten(1).square() @ linear.weight.square().sum(0)
    elbo = -392 * math.log(2 * math.pi * variance) - squares / (2 * variance) - q.kl()
    once = vae.importance_weighted_bound(model, x.repeat(200, 1, 1, 1), variance, samples=1)
    assert torch.allclose(once.view(200, 4).mean(0), elbo.double(), atol=0.3)
    assert (elbo < exact - 0.4).all()


def test_a_bound_needs_samples_and_a_variance_where_its_likelihood_has_one(digits):
    for likelihood, variance in (("bernoulli", 0.1), ("calibrated", None), ("calibrated", 0.0)):
        model = make(latent_size=2, latent_grid=1, likelihood=likelihood)
        with pytest.raises(ValueError, match=f"variance={variance} is not allowed"):
            vae.importance_weighted_bound(model, digits, variance)
    with pytest.raises(ValueError, match="samples=0"):
        vae.importance_weighted_bound(model, digits, 0.3, samples=0)
