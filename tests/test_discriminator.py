import pytest
import torch

import vae


def test_a_logit_depends_on_its_18_by_18_patch_alone():
    discriminator = vae.PatchDiscriminator()
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    logits = discriminator(x)
    assert logits.shape == (1, 1, 7, 7)
    (gradient,) = torch.autograd.grad(logits[0, 0, 3, 3], x)
    rows = gradient[0, 0].abs().sum(1).nonzero()[:, 0]
    assert rows.max() - rows.min() + 1 == 18


def test_a_logit_of_a_whole_image_depends_on_all_of_it_and_on_its_label():
    torch.manual_seed(0)
    discriminator = vae.ImageDiscriminator()
    x, labels = torch.rand(2, 1, 28, 28, requires_grad=True), torch.tensor([3, 4])
    logits = discriminator(x, labels)
    assert logits.shape == (2,)
    (gradient,) = torch.autograd.grad(logits[0], x)
    assert (gradient[0] != 0).double().mean() > 0.95
    assert not gradient[1].any()
    other = discriminator(x, torch.tensor([3, 5]))
    assert other[0].item() == pytest.approx(logits[0].item(), rel=1e-2)  # norms move a little
    assert abs(other[1] - logits[1]) > 0.05 * abs(logits[1])
    features = discriminator.layers(x)
    unknown = discriminator(x, torch.tensor([discriminator.unknown] * 2))
    torch.testing.assert_close(unknown, discriminator.real(features)[:, 0], rtol=1e-2, atol=1e-3)


def test_each_layer_of_the_discriminator_of_images_stretches_by_one_at_most():
    torch.manual_seed(0)
    discriminator = vae.ImageDiscriminator(width=8)
    for _ in range(200):  # of the power iteration
        discriminator(torch.rand(1, 1, 28, 28), torch.tensor([0]))
    for layer in (*discriminator.layers[:-1:2], discriminator.real):
        values = torch.linalg.svdvals(layer.weight.flatten(1))
        assert values.max().item() == pytest.approx(1, abs=0.01)
