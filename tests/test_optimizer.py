import copy

import pytest
import torch
from torch import nn

import vae
from vae.machinery.optimizer import Muon, orthogonalize


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(values)  # same strides, as autograd does


def one_by_one(x):
    """Jordan's iteration as it is written down, in float64."""
    x = x.double() / x.double().norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def test_orthogonalize_keeps_the_directions_and_evens_their_lengths():
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 16, 40), (3, 40, 16), (1, 24, 36), (1, 64, 8)
    stacks = [torch.randn(shape, generator=generator) for shape in shapes]
    stacks.append(stacks[0] * torch.logspace(0, -4, 40))  # with some directions that hardly count
    for scale in (1e-6, 1.0, 1e6):
        for matrices, found in zip(stacks, orthogonalize([scale * x for x in stacks]), strict=True):
            expected = torch.stack([one_by_one(x) for x in matrices])
            assert (found - expected).norm() < 1e-3 * expected.norm()
            u, _, v = torch.linalg.svd(matrices.double(), full_matrices=False)
            lengths = u.mT @ found.double() @ v.mT
            diagonal = lengths.diagonal(dim1=1, dim2=2)
            assert (lengths - torch.diag_embed(diagonal)).abs().max() < 1e-3
            if matrices is not stacks[-1]:
                assert diagonal.min() > 0.6
                assert diagonal.max() < 1.3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_matrices_move_as_torchs_muon_moves_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 48))
    twin = copy.deepcopy(model)
    ours = Muon(model, lr=0.02, weight_decay=0.1)
    weights = [layer.weight for layer in twin]
    theirs = torch.optim.Muon(weights, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = [layer.weight.detach().clone() for layer in model]
    for seed in range(5):
        for each, optimizer in ((model, ours), (twin, theirs)):
            set_gradients(each, seed)
            optimizer.step()
    for a, b, before in zip([layer.weight for layer in model], weights, start, strict=True):
        difference = (a - b).norm() / (b - before).norm()
        assert difference < 0.02  # torch's products are in bfloat16


def test_all_but_matrices_move_as_adamw_moves_them(digits):
    model = vae.VAE(vae.VAEConfig(channels=(8, 16, 16), num_classes=10))
    twin = copy.deepcopy(model)
    ours = Muon(model, lr=0.02, weight_decay=0.1)
    matrices = {id(p) for p in ours.param_groups[0]["params"]}
    convolutions = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(id(w) in matrices for w in convolutions) > len(convolutions) / 2
    assert id(model.class_embedding.weight) not in matrices
    theirs = torch.optim.AdamW(twin.parameters(), 0.01, (0.9, 0.99), weight_decay=0.1)
    for seed in range(3):
        for each, optimizer in ((model, ours), (twin, theirs)):
            set_gradients(each, seed)
            optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5) == (id(a) not in matrices), a.shape
