import json

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vae

SMALL = (8, 16, 16)


def make(**options) -> vae.VAE:
    """A small model, its zero-initialised layers made random so that every path carries."""
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(channels=SMALL, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


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
    labels = torch.arange(6) % 10 if classes else None
    posterior = model.encode(digits[:6], labels)
    assert posterior.mean.shape == posterior.logvar.shape == (6, size, grid, grid)
    assert posterior.kl().shape == (6,)
    assert model.config.latent_values == posterior.mean[0].numel()
    images = model.decode(posterior.mode(), labels)
    assert images.shape == (6, 1, 28, 28)
    assert images.abs().max() <= 1
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
    z = torch.randn(2, 2, 7, 7)
    assert not torch.allclose(
        model.decode(z, torch.tensor([1, 1])), model.decode(z, torch.tensor([1, 2]))
    )


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


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("latent_size", 0),
        ("latent_size", 65),
        ("latent_size", 2.5),
        ("latent_grid", 5),
        ("channels", (16, 50, 96)),
        ("channels", (16, 32)),
        ("blocks", 0),
        ("num_classes", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*not allowed"):
        vae.VAEConfig(**{setting: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, 0], "shape.*28, 28.*expected"),
        (lambda x: x[..., :27], "shape.*28, 27.*expected"),
        (lambda x: x * 127.5 + 127.5, r"0.*255.*\[-1, 1\]"),
        (lambda x: x.byte(), "uint8.*scale_images"),
        (lambda x: x * float("nan"), "nan"),
        (lambda x: x.numpy(), "ndarray"),
    ],
)
def test_wrong_images_are_refused(change, message, digits):
    with pytest.raises(ValueError, match=message):
        make().encode(change(digits))


def test_wrong_latents_and_labels_are_refused(digits):
    with pytest.raises(ValueError, match=r"z has shape \(1, 3, 7, 7\).*2, 7, 7"):
        make().decode(torch.zeros(1, 3, 7, 7))
    with pytest.raises(ValueError, match="num_classes=0"):
        make().encode(digits, torch.zeros(64, dtype=torch.int64))
    conditional = make(num_classes=10)
    with pytest.raises(ValueError, match="num_classes=10"):
        conditional.encode(digits)
    with pytest.raises(ValueError, match=r"labels.*int64 \(64,\)"):
        conditional.encode(digits, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels.*from 0 to 9.*10"):
        conditional.eval().encode(digits, torch.full((64,), 10))
    with pytest.raises(ValueError, match="n=0"):
        make().sample(0)


def test_save_and_load_give_the_same_model(tmp_path, digits):
    model = make(latent_size=4, num_classes=10).eval()
    model.save_pretrained(tmp_path)
    loaded = vae.VAE.from_pretrained(tmp_path)
    assert loaded.config == model.config
    labels = torch.zeros(64, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(model.encode(digits, labels).mean, loaded.encode(digits, labels).mean)
    model.bfloat16().save_pretrained(tmp_path)
    halved = vae.VAE.from_pretrained(tmp_path).decoder.position
    assert torch.equal(halved, loaded.decoder.position.bfloat16().float())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def damage(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(data[:-10])
    elif kind == "altered":
        data[-20] ^= 64
        path.write_bytes(data)
    else:
        path.write_bytes(b"not at all such a file")


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("model.safetensors", "config.json")
     for kind in ("missing", "truncated", "altered", "other")],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(name, kind, tmp_path):
    make().save_pretrained(tmp_path)
    damage(tmp_path / name, kind)
    with pytest.raises(vae.FileError, match=name):
        vae.VAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"latent_size": 4}, {"latent_grid": 5}, {"speed": 9}])
def test_config_and_weights_that_do_not_fit_are_refused(change, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(vae.FileError, match=r"config\.json"):
        vae.VAE.from_pretrained(tmp_path)


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
    model = make(latent_size=4, latent_grid=1).eval()
    with torch.no_grad():
        before, images = model.encode(digits), model.decode(model.encode(digits).mean)
        for parameter in model.couplings.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        after = model.encode(digits)
        assert (after.mean - before.mean).abs().mean() > 0.1
        assert torch.equal(after.logvar, before.logvar)
        assert torch.allclose(model.decode(after.mean), images, atol=1e-4)
    gradient = torch.autograd.grad(
        model.encode(digits).kl().sum(), list(model.couplings.parameters())
    )
    assert all(g.any() for g in gradient)
    assert not vae.VAE(vae.VAEConfig(4)).couplings  # on a grid every place would need its own
    assert not vae.VAE(vae.VAEConfig(1, 1)).couplings
    plain = vae.VAEConfig(4, 1, variational=False)
    assert not vae.VAE(plain).couplings  # rounding alone would train them


@pytest.mark.parametrize("classes", [0, 10])
def test_the_marginal_nll_is_a_change_of_variables_and_moves_the_couplings_alone(classes):
    model = make(latent_size=5, latent_grid=1, num_classes=classes).double()
    labels = torch.tensor([3, 7]) if classes else None
    context = model.class_embedding(labels) if classes else None
    z = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)

    def decoder_input(z, context):
        for coupling in model.couplings:
            z = coupling(z, context)
        return z

    nll = model.marginal_nll(z[..., None, None], labels)
    for i in range(2):
        row = None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda one, row=row: decoder_input(one[None], row)[0], z[i]
        )
        expected = z[i].square().sum() / 2 + torch.linalg.slogdet(jacobian).logabsdet
        assert nll[i].item() == pytest.approx(expected.item(), rel=1e-5)  # float32 rotations
    nll.sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert all(name.startswith("couplings.") for name in moved)
    assert z.grad is None


def test_the_marginal_nll_makes_latents_of_any_shape_normal():
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(2, 1, channels=(8, 16, 16)))
    u = torch.randn(500, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.2]]) + torch.tensor([2.0, 0.0])
    optimizer = torch.optim.Adam(model.couplings.parameters(), 0.003)
    for _ in range(200):
        z = u
        with torch.no_grad():
            for coupling in reversed(model.couplings):
                z, _ = coupling.inverse(z)
        optimizer.zero_grad()
        model.marginal_nll(z[..., None, None]).mean().backward()
        optimizer.step()
    assert torch.allclose(torch.cov(z.T), torch.eye(2), atol=0.2)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=0.2)


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
    for wrong in (labels[:1000], torch.arange(1500) % 10):
        with pytest.raises(ValueError, match=r"int64 \(1203,\)"):
            model.sample(1203, wrong)
