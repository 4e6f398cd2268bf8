"""Files: what is written is read back, and none is trusted."""

import json

import pytest
import torch
from helpers import make

import vae


def test_save_and_load_give_the_same_model(tmp_path):
    model = make(latent_size=4, num_classes=10)
    model.save_pretrained(tmp_path)
    loaded = vae.VAE.from_pretrained(tmp_path)
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    model.bfloat16().save_pretrained(tmp_path)
    halved = vae.VAE.from_pretrained(tmp_path).decoder.position
    assert torch.equal(halved, loaded.decoder.position.bfloat16().float())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("change", [{"latent_size": 4}, {"latent_grid": 5}, {"speed": 9}])
def test_config_and_weights_that_do_not_fit_are_refused(change, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(vae.FileError, match=r"config\.json"):
        vae.VAE.from_pretrained(tmp_path)
