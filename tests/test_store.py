"""Files: whole or not there, and none is trusted."""

import json

import pytest
import torch
from helpers import make

import vae
from vae.pretrained import write_atomically


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


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_files_are_refused_by_name(name, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    altered = whole[:-20] + bytes([whole[-20] ^ 64]) + whole[-19:]
    path.unlink()
    for damaged in (None, whole[:-10], altered, b"not at all such a file"):
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(vae.FileError, match=name):
            vae.VAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"latent_size": 4}, {"latent_grid": 5}, {"speed": 9}])
def test_config_and_weights_that_do_not_fit_are_refused(change, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(vae.FileError, match=r"config\.json"):
        vae.VAE.from_pretrained(tmp_path)


@pytest.mark.unix
def test_no_space_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    import resource  # of Unix

    model = vae.VAE(vae.VAEConfig(channels=(8, 16, 16)))
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^{tmp_path}/metrics.json could not be written"):
            write_atomically(tmp_path / "metrics.json", bytes(5000))
        with pytest.raises(OSError, match=f"^{tmp_path}/model.safetensors could not be written"):
            model.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
