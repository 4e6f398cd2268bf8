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
    with pytest.raises(ValueError, match="3, 28, 28"):
        discriminator(torch.rand(1, 3, 28, 28))
