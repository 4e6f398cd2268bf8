import math

import pytest
import torch
from torch.distributions import Normal

from vae import losses


def test_calibrated_nll_is_the_likelihood_at_its_optimal_variance_and_has_its_gradient():
    x, mean = torch.rand(2, 4, 784, dtype=torch.float64)
    mse = (x - mean).square().mean().requires_grad_()

    def nll(variance):
        return -Normal(mean, variance.sqrt()).log_prob(x).sum(1).mean()

    torch.testing.assert_close(losses.calibrated_nll(mse), nll(mse))
    assert nll(mse) < min(nll(1.01 * mse), nll(0.99 * mse))
    closed = 784 / 2 * (torch.log(2 * math.pi * mse) + 1)
    ours, theirs = (torch.autograd.grad(f, mse) for f in (losses.calibrated_nll(mse), closed))
    torch.testing.assert_close(ours, theirs)
    assert losses.calibrated_nll(torch.tensor(0.0)).isfinite()


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(0.25 + 0.75)
    assert losses.discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == 2  # collapsed
    assert losses.generator_loss(fake).item() == pytest.approx(0.75)


def test_gradient_penalty_of_a_known_function():
    x = torch.rand(3, 1, 28, 28, requires_grad=True)
    logits = 2 * x.sum((1, 2, 3), keepdim=True)  # gradient 2 at each of 784 pixels
    assert losses.gradient_penalty(logits, x).item() == pytest.approx(4 * 784)


def test_the_adaptive_weight_gives_the_generators_gradient_the_length_of_the_others():
    weight = losses.adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.5]))
    assert weight.item() == pytest.approx(2, rel=1e-5)
    assert losses.adaptive_weight(torch.tensor(1.0), torch.tensor(0.0)).item() == 1e4


def test_an_amplified_gradient_leaves_the_value_as_it_is():
    x = torch.tensor(3.0, requires_grad=True)
    amplified = losses.amplify_gradient(x.square(), 4)
    assert amplified.item() == 9
    assert torch.autograd.grad(amplified, x)[0].item() == 4 * 6
