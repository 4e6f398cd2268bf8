import math

import numpy as np
import pytest
import torch
from helpers import make
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import vae


def check_against_skimage(x, y, **options):
    pairs = list(zip(x.squeeze(1).double().numpy(), y.squeeze(1).double().numpy(), strict=True))
    ssim = [structural_similarity(a, b, data_range=2, **options) for a, b in pairs]
    psnr = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in pairs]
    np.testing.assert_allclose(vae.ssim(x, y).numpy(), ssim, rtol=0, atol=1e-12)
    np.testing.assert_allclose(vae.psnr(x, y).numpy(), psnr, rtol=0, atol=1e-10)


def test_ssim_and_psnr_are_scikit_images(digits):
    torch.manual_seed(0)
    x = torch.cat([digits[:12], torch.rand(4, 1, 28, 28) * 2 - 1])
    noisy = x[8:12] + 0.01 * torch.randn(4, 1, 28, 28)
    y = torch.cat([digits[1:9], noisy, torch.ones(4, 1, 28, 28)])
    check_against_skimage(x, y)


def test_ssim_and_psnr_of_colour_are_scikit_images():
    torch.manual_seed(0)
    x = torch.rand(6, 3, 32, 32) * 2 - 1
    y = (x + 0.2 * torch.randn(6, 3, 32, 32)).clamp(-1, 1)
    y[3:] = 0.5 * x[3:].roll(1, 1)  # where the channels differ in how similar they are
    check_against_skimage(x, y, channel_axis=0)
    found = vae.evaluate(make(image_size=32, image_channels=3), x, lpips_images=0, reference=True)
    assert found["skimage_difference"] < 1e-9
    nll = 1536 * (math.log(2 * math.pi * found["sample"]["mse"]) + 1)
    assert found["neg_elbo"] == pytest.approx(nll + found["kl"])


def test_evaluate_counts_each_image_once():
    model = make()
    images = vae.load_digits("test").images[:50]
    whole = vae.evaluate(model, images, lpips_images=5, batch_size=50, reference=True)
    parts = vae.evaluate(model, images, lpips_images=5, batch_size=7)
    floats = vae.evaluate(model, vae.scale_images(images), lpips_images=5, batch_size=7)
    assert whole["skimage_difference"] < 1e-9
    kept = vae.evaluate(model, images, lpips_images=0, mean=False)
    assert set(kept["sample"]) == {"mse", "ssim", "psnr"}
    assert parts == floats
    for kind in ("sample", "mean"):
        assert set(whole[kind]) == {"mse", "ssim", "psnr", "lpips"}
        assert whole[kind] == pytest.approx(parts[kind], rel=1e-5)
    x = vae.scale_images(images)
    with torch.no_grad():
        posterior = model.encode(x)
        error = (model.decode(posterior.mode()) - x).square().mean().item()
    assert whole["mean"]["mse"] == pytest.approx(error, rel=1e-5)
    assert whole["kl"] == pytest.approx(posterior.kl().mean().item(), rel=1e-5)
    expected = 392 * (np.log(2 * np.pi * whole["sample"]["mse"]) + 1) + whole["kl"]
    assert whole["neg_elbo"] == pytest.approx(expected)
    assert (whole["images"], whole["latent_values"], whole["lpips_images"]) == (50, 98, 5)


def test_active_units_are_those_whose_mean_differs_between_images(digits):
    model = make(latent_size=6, latent_grid=1, couplings=0).eval()
    assert vae.active_units(model, digits) == 6
    model.encoder.conv_out.weight.data[[1, 4]] = 0
    model.encoder.conv_out.bias.data[[1, 4]] = 3  # a mean that is the same for all
    assert vae.active_units(model, digits) == 4


def test_labels_are_asked_for_and_used_batch_by_batch(digits):
    model = make(latent_size=2, latent_grid=1, num_classes=10).eval()
    labels = torch.arange(64) % 10
    noise = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.encode(digits, labels).kl(noise).mean().item()
    measured = vae.evaluate(model, digits, labels, lpips_images=0, batch_size=10)
    assert measured["kl"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="labels=None, but num_classes=10"):
        vae.evaluate(model, digits, lpips_images=0)


def test_constant_and_equal_images_have_defined_metrics():
    black, grey, white = (torch.full((1, 1, 28, 28), level) for level in (-1.0, 0.0, 1.0))
    for image in (black, grey, white, torch.rand(1, 1, 28, 28)):
        assert vae.ssim(image, image).item() == pytest.approx(1)
        assert vae.psnr(image, image).item() == float("inf")
    assert vae.psnr(black, white).item() == pytest.approx(0)
    assert -1 <= vae.ssim(black, white).item() < 0
