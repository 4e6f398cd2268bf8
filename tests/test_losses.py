import pytest
import torch
from torch.distributions import Normal

from vae import losses


def test_calibrated_nll_is_the_likelihood_at_its_optimal_variance():
    x, mean = torch.rand(2, 4, 784, dtype=torch.float64)
    mse = (x - mean).square().mean()

    def nll(variance):
        return -Normal(mean, variance.sqrt()).log_prob(x).sum(1).mean()

    torch.testing.assert_close(losses.calibrated_nll(mse), nll(mse))
    assert nll(mse) < min(nll(1.01 * mse), nll(0.99 * mse))
    assert losses.calibrated_nll(torch.tensor(0.0)).isfinite()


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(0.25 + 0.75)
    assert losses.discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == 2  # collapsed
    assert losses.generator_loss(fake).item() == pytest.approx(0.75)


def test_the_adaptive_weight_is_bounded():
    assert losses.adaptive_weight(torch.tensor(1.0), torch.tensor(0.0)).item() == 1e4
