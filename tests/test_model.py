import pytest
import torch
from helpers import SMALL, make
from torch.distributions import Normal, kl_divergence

import vae


def test_kl_equals_torch_distributions():
    mean, logvar = torch.randn(5, 4, 7, 7), 3 * torch.randn(5, 4, 7, 7)
    posterior = vae.DiagonalGaussian(mean, logvar)
    expected = kl_divergence(Normal(mean.double(), (logvar.double() / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(posterior.kl().double(), expected.sum((1, 2, 3)), rtol=1e-5, atol=0)


def test_sampling_is_reparameterised():
    mean = torch.randn(3, 2, 1, 1, requires_grad=True)
    logvar = torch.randn(3, 2, 1, 1, requires_grad=True)
    noise = torch.randn(3, 2, 1, 1)
    posterior = vae.DiagonalGaussian(mean, logvar)
    to_mean, to_logvar = torch.autograd.grad(posterior.sample(noise).sum(), (mean, logvar))
    torch.testing.assert_close(to_mean, torch.ones_like(mean))
    torch.testing.assert_close(to_logvar, 0.5 * noise * (logvar / 2).exp())
    many = vae.DiagonalGaussian(torch.full((4000, 1, 1, 1), 3.0), torch.zeros(4000, 1, 1, 1))
    assert abs(many.sample().mean() - 3) < 0.1
    assert abs(many.sample().std() - 1) < 0.1


@pytest.mark.parametrize("grid", [1, 7])
@pytest.mark.parametrize("size", [2, 16])
@pytest.mark.parametrize("classes", [0, 10])
def test_shapes_and_ranges(grid, size, classes, digits):
    model = make(latent_size=size, latent_grid=grid, num_classes=classes)
    labels = torch.arange(6) if classes else None
    posterior = model.encode(digits[:6], labels)
    assert posterior.mean.shape == posterior.gaussian.logvar.shape == (6, size, grid, grid)
    assert posterior.sample().shape == posterior.mean.shape
    assert posterior.kl().shape == (6,)
    assert model.config.latent_values == posterior.mean[0].numel()
    images = model.decode(posterior.mode(), labels)
    assert images.shape == (6, 1, 28, 28)
    assert images.abs().max() <= 1
    token = model.class_token(labels, 6)
    u = model.encoder(digits[:6], token).chunk(2, dim=1)[0]  # which couplings turn into z and back
    torch.testing.assert_close(images, model.decoder(u, token), rtol=0, atol=1e-4)
    noise = torch.randn(posterior.mean.shape)
    images = model.decode(posterior.sample(noise), labels)
    torch.testing.assert_close(model(digits[:6], labels, noise)[0], images, rtol=0, atol=1e-4)
    seed = torch.Generator().manual_seed
    assert torch.equal(model.sample(6, labels, seed(1)), model.sample(6, labels, seed(1)))


def test_the_latent_is_the_only_way_from_image_to_reconstruction(digits):
    model = make()
    x, other = digits[:8], digits[8:16]
    noise = torch.randn(8, 2, 7, 7)
    assert not torch.equal(model(x, noise=noise)[0], model(other, noise=noise)[0])
    model.encoder.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    assert torch.equal(model(x, noise=noise)[0], model(other, noise=noise)[0])


def test_attention_can_be_switched_off_and_labels_matter():
    kinds = [type(m).__name__ for m in make(self_attention=False, cross_attention=False).modules()]
    assert "Attention" not in kinds
    model = make(num_classes=10)
    z, labels = torch.randn(2, 2, 7, 7), torch.tensor([1, 2])
    assert not torch.allclose(model.decode(z, labels), model.decode(z, labels[[0, 0]]))


def test_cross_attention_lets_every_place_see_the_whole_latent():
    model = vae.VAE(vae.VAEConfig(channels=SMALL, self_attention=False))
    block = model.decoder.up_blocks[1]
    torch.nn.init.normal_(block.cross_attention.to_out.weight)
    tokens = torch.randn(1, 49, SMALL[-1], requires_grad=True)
    out = block(torch.randn(1, SMALL[1], 14, 14), tokens)
    (gradient,) = torch.autograd.grad(out[0, :, 0, 0].sum(), tokens)
    assert (gradient.abs().sum(-1) > 0).all()


def test_log_variance_is_bounded_in_half_precision(digits):
    model = make()
    with torch.no_grad():
        model.encoder.conv_out.weight.mul_(1e4)
    posterior = model.encode(digits[:4])
    assert posterior.logvar.abs().max() <= 15
    assert posterior.std.half().isfinite().all()
    assert (posterior.std.half() > 0).all()
    assert posterior.kl().isfinite().all()


@pytest.mark.parametrize(("setting", "value"), [
    ("latent_size", 0), ("latent_size", 65), ("latent_size", 2.5), ("latent_grid", 5),
    ("channels", (16, 50, 96)), ("channels", (16, 32)), ("blocks", 0), ("num_classes", -1),
])  # fmt: skip
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*not allowed"):
        vae.VAEConfig(**{setting: value})


def test_labels_that_nobody_asked_for_and_samples_of_nothing_are_refused(digits):
    with pytest.raises(ValueError, match="num_classes=0"):
        make().encode(digits, torch.zeros(64, dtype=torch.int64))
    with pytest.raises(ValueError, match="n=0"):
        make().sample(0)


def test_a_plain_autoencoder_has_no_width_and_no_rate(digits):
    model = make(latent_size=4, latent_grid=1, variational=False)
    posterior = model.encode(digits)
    assert torch.equal(posterior.sample(), posterior.mean)
    assert torch.equal(model(digits)[0], model(digits)[0])
    assert posterior.kl().isposinf().all()
    with pytest.raises(ValueError, match=r"beta=1\.0 is not allowed with variational=False"):
        vae.TrainConfig(model.config)
    result = vae.evaluate(model, digits, lpips_images=0)
    assert result["sample"] == pytest.approx(result["mean"])
    assert "kl" not in result
    with pytest.raises(ValueError, match="variational=False"):
        vae.importance_weighted_bound(model, digits, 0.1)


def test_many_images_are_drawn_in_parts_that_make_no_difference():
    model = make(num_classes=10).eval()
    labels = torch.arange(1203) % 10
    images = model.sample(1203, labels, torch.Generator().manual_seed(1))
    z = torch.randn(1203, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(images[-5:], model.decode(z[-5:], labels[-5:]), atol=1e-5)
    with pytest.raises(ValueError, match=r"int64 \(1203,\)"):
        model.sample(1203, torch.arange(1500) % 10)
