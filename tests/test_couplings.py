"""The couplings of a global latent: a map, its inverse, and the gradient that shapes it."""

import pytest
import torch
from helpers import make

import vae
from vae.couplings import Couplings


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


def test_without_couplings_the_map_is_the_identity():
    z = torch.randn(3, 2, 1, 1)
    none = Couplings()
    assert none(z) is z
    assert none.inverse(z) is z
    assert torch.allclose(none.marginal_nll(z), z.flatten(1).square().sum(1) / 2)
