import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import vae


def test_ssim_and_psnr_are_scikit_images(digits):
    torch.manual_seed(0)
    x = torch.cat([digits[:12], torch.rand(4, 1, 28, 28) * 2 - 1])
    y = torch.cat(
        [digits[1:9], x[8:12] + 0.01 * torch.randn(4, 1, 28, 28), torch.ones(4, 1, 28, 28)]
    )
    pairs = list(zip(x[:, 0].double().numpy(), y[:, 0].double().numpy(), strict=True))
    ssim = [structural_similarity(a, b, data_range=2) for a, b in pairs]
    psnr = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in pairs]
    np.testing.assert_allclose(vae.ssim(x, y).numpy(), ssim, rtol=0, atol=1e-12)
    np.testing.assert_allclose(vae.psnr(x, y).numpy(), psnr, rtol=0, atol=1e-10)
    assert vae.ssim(x, x).tolist() == pytest.approx([1] * 16)
    assert vae.psnr(x, x).isinf().all()


def test_ssim_and_psnr_of_colour_are_scikit_images():
    torch.manual_seed(0)
    x = torch.rand(6, 3, 32, 32) * 2 - 1
    y = (x + 0.2 * torch.randn(6, 3, 32, 32)).clamp(-1, 1)
    y[3:] = 0.5 * x[3:].roll(1, 1)  # where the channels differ in how similar they are
    pairs = list(zip(x.double().numpy(), y.double().numpy(), strict=True))
    ssim = [structural_similarity(a, b, data_range=2, channel_axis=0) for a, b in pairs]
    psnr = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in pairs]
    np.testing.assert_allclose(vae.ssim(x, y).numpy(), ssim, rtol=0, atol=1e-12)
    np.testing.assert_allclose(vae.psnr(x, y).numpy(), psnr, rtol=0, atol=1e-10)
    colour = vae.VAE(vae.VAEConfig(channels=(8, 16, 16), image_size=32, image_channels=3))
    found = vae.evaluate(colour, x, lpips_images=0, reference=True)
    assert found["skimage_difference"] < 1e-9
    nll = 1536 * (math.log(2 * math.pi * found["sample"]["mse"]) + 1)
    assert found["neg_elbo"] == pytest.approx(nll + found["kl"])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vae.VAE(vae.VAEConfig(channels=(8, 16, 16))).eval()


def test_evaluate_counts_each_image_once(model):
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
        for name in whole[kind]:
            assert whole[kind][name] == pytest.approx(parts[kind][name], rel=1e-5)
    x = vae.scale_images(images)
    with torch.no_grad():
        posterior = model.encode(x)
        error = (model.decode(posterior.mode()) - x).square().mean().item()
    assert whole["mean"]["mse"] == pytest.approx(error, rel=1e-5)
    assert whole["kl"] == pytest.approx(posterior.kl().mean().item(), rel=1e-5)
    expected = 392 * (np.log(2 * np.pi * whole["sample"]["mse"]) + 1) + whole["kl"]
    assert whole["neg_elbo"] == pytest.approx(expected)
    assert (whole["images"], whole["latent_values"], whole["lpips_images"]) == (50, 98, 5)


def test_evaluate_refuses_what_are_not_images(model):
    with pytest.raises(ValueError, match=r"28, 28.*expected"):
        vae.evaluate(model, torch.zeros(5, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="int64"):
        vae.evaluate(model, torch.zeros(5, 1, 28, 28, dtype=torch.int64))
    with pytest.raises(ValueError, match="lpips_images=-1"):
        vae.evaluate(model, torch.zeros(5, 1, 28, 28), lpips_images=-1)
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        vae.evaluate(model, torch.full((5, 1, 28, 28), 255.0))


def test_the_importance_weighted_bound_goes_from_the_elbo_to_the_likelihood(digits):
    """Where the decoder does not look at z, log p(x) is known."""
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(2, 1, channels=(8, 16, 16))).eval()
    torch.nn.init.zeros_(model.decoder.conv_out.weight)
    model.encoder.conv_out.bias.data[:] = torch.tensor([1.0, 1.0, 0.7, 0.7])  # far from N(0, 1)
    x = digits[:2]
    with torch.no_grad():
        kl = torch.stack([model.encode(x).kl() for _ in range(2000)]).mean(0)
        grey = torch.tanh(model.decoder.conv_out.bias)
    error = (x - grey).double().square().flatten(1).mean(1)
    log_likelihood = -392 * (math.log(2 * math.pi * 0.3) + error / 0.3)
    many = vae.importance_weighted_bound(model, x, 0.3, samples=3000)
    assert torch.allclose(many, log_likelihood, atol=0.1)
    once = vae.importance_weighted_bound(model, x.repeat(100, 1, 1, 1), 0.3, samples=1)
    assert kl.min() > 1
    assert torch.allclose(once.view(100, 2).mean(0), log_likelihood - kl, atol=0.3)
    with pytest.raises(ValueError, match="samples=0"):
        vae.importance_weighted_bound(model, x, 0.3, samples=0)
    with pytest.raises(ValueError, match=r"variance=0\.0"):
        vae.importance_weighted_bound(model, x, 0.0)


def test_active_units_are_those_whose_mean_differs_between_images(digits):
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(6, 1, channels=(8, 16, 16), couplings=0)).eval()
    assert vae.active_units(model, digits) == 6
    model.encoder.conv_out.weight.data[[1, 4]] = 0
    model.encoder.conv_out.bias.data[[1, 4]] = 3  # a mean that is the same for all
    assert vae.active_units(model, digits) == 4


def test_labels_are_asked_for_and_used_batch_by_batch(digits):
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(2, 1, channels=(8, 16, 16), num_classes=10)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    labels = torch.arange(64) % 10
    with torch.no_grad():
        noise = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0))
        expected = model.encode(digits, labels).kl(noise).mean().item()
    measured = vae.evaluate(model, digits, labels, lpips_images=0, batch_size=10)
    assert measured["kl"] == pytest.approx(expected, rel=1e-4)
    for measure in (
        lambda given: vae.evaluate(model, digits, given, lpips_images=0),
        lambda given: vae.active_units(model, digits, given),
        lambda given: vae.importance_weighted_bound(model, digits, 0.1, given, samples=2),
    ):
        with pytest.raises(ValueError, match="labels=None, but num_classes=10"):
            measure(None)
        with pytest.raises(ValueError, match=r"labels are torch.int64 \(50,\); int64 \(64,\)"):
            measure(labels[:50])


def test_constant_images_have_defined_metrics():
    black, grey, white = (torch.full((1, 1, 28, 28), level) for level in (-1.0, 0.0, 1.0))
    for image in (black, grey, white):
        assert vae.ssim(image, image).item() == pytest.approx(1)
        assert vae.psnr(image, image).item() == float("inf")
    assert vae.psnr(black, white).item() == pytest.approx(0)
    assert -1 <= vae.ssim(black, white).item() < 0
