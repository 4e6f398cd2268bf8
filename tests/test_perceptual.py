import contextlib
import io
import types

import pytest
import torch
from helpers import WIDE, resize
from torchvision.models import WeightsEnum

import vae
from vae import perceptual

pytestmark = pytest.mark.usefixtures("wide_networks")


@pytest.fixture(scope="module")
def ours():
    with pytest.MonkeyPatch.context() as patched:
        resize(patched, *WIDE)
        return vae.LPIPS()


@pytest.fixture(scope="module")
def pairs():
    """Real digits, each with a noisy, a shifted and a blank other."""
    x = vae.scale_images(vae.load_digits("test").images[:12])
    y = torch.cat([(x[:4] + 0.2 * torch.randn(4, 1, 28, 28)).clamp(-1, 1), x[4:8].roll(2, -1)])
    return x, torch.cat([y, -torch.ones(4, 1, 28, 28)])


@torch.no_grad()
def compare(ours, theirs, pairs, least):
    """Both give the same distances, one of which is larger than `least`."""
    expected = theirs(*(images.expand(-1, 3, -1, -1) for images in pairs)).flatten()
    assert expected.max() > least
    torch.testing.assert_close(ours(*pairs), expected, rtol=0, atol=1e-5)


def test_shift_tolerant_equals_the_authors_own(ours, pairs):
    with contextlib.redirect_stdout(io.StringIO()):
        from stlpips_pytorch import stlpips

        theirs = stlpips.LPIPS(net="vgg", variant="shift_tolerant")
    compare(ours, theirs, pairs, 0.05)


def test_v01_equals_the_authors_own_with_the_backbone_copied_over(pairs, monkeypatch):
    import lpips

    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = theirs.net.state_dict().items()
    backbone = {"features." + name.split(".", 1)[1]: value for name, value in state}
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **options: backbone)
    compare(vae.LPIPS("v0.1"), theirs, pairs, 1e-3)


def test_it_is_frozen_and_differentiable_where_features_vanish(ours, pairs):
    x, y = pairs[0], pairs[1].clone().requires_grad_()
    assert torch.equal(ours.eval()(x, y), ours.train()(x, y))
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    distance = ours(x, y)
    assert (distance > 0).all()
    assert torch.equal(ours(x, x), torch.zeros(12))
    (gradient,) = torch.autograd.grad(distance.sum(), y)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_a_variant_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"variant='v9'.*shift_tolerant"):
        vae.LPIPS("v9")


@pytest.mark.parametrize("damage", ["altered", "missing", "not installed"])
def test_weights_that_are_not_the_published_ones_are_refused(damage, tmp_path, monkeypatch):
    path = tmp_path / "weights/vST0.0/vgg_shift_tolerant.pth"
    path.parent.mkdir(parents=True)
    if damage == "altered":
        path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    found = None if damage == "not installed" else spec
    monkeypatch.setattr(perceptual, "find_spec", lambda name: found)
    with pytest.raises(vae.FileError, match="pip install"):
        vae.LPIPS()


def test_v01_without_its_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(vae.FileError, match=r"vgg16.*checkpoints.*shift_tolerant"):
        vae.LPIPS("v0.1")
