"""A decoder that is sharpened: what moves and what stays, its gradient, and its run's folder."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import advance, caught, make, snapshot

import vae
from vae import step
from vae.machinery import loop
from vae.machinery.cli import main
from vae.machinery.folder import read_metrics
from vae.machinery.sharpening import SharpenTrainer
from vae.machinery.shipped import asset

FLAGS = ["--epochs", "1", "--max-train-images", "64", "--lpips-images", "0", "--w-perceptual", "0"]
FEW = {"epochs": 1, "max_train_images": 64, "batch_size": 16, "lpips_images": 2}


def few(**options) -> vae.SharpenConfig:
    return vae.SharpenConfig(**FEW | options)


@pytest.fixture
def folder(folder):
    """A folder of a VAE with a global latent whose layers are random."""
    make(latent_size=3, latent_grid=1, couplings=2).save_pretrained(folder)
    return folder


@pytest.fixture(params=[(0, "diagonal"), (0, "coupled"), (10, "coupled")])
def sharpener(request, folder, tmp_path):
    """A training on models that are told the digit or not, with either kind of posterior."""
    classes, posterior = request.param
    shape = {"latent_size": 3, "latent_grid": 1, "couplings": 2, "num_classes": classes}
    make(**shape, posterior=posterior).save_pretrained(folder)
    model = vae.VAE.from_pretrained(folder)
    return SharpenTrainer(model, folder, tmp_path / "sharp", few(clip_norm=1e9))


def test_the_decoder_moves_and_what_decides_the_latents_stays(sharpener, folder):
    before = vae.VAE.from_pretrained(folder)
    d_before = snapshot(sharpener.discriminator)
    loop.take_steps(sharpener)
    sharpener.recorder.run.save()
    after = vae.VAE.from_pretrained(sharpener.directory)
    for name, tensor in after.state_dict().items():
        same = torch.equal(tensor, before.state_dict()[name])
        assert same != name.startswith("decoder."), name
    for a, b in zip(sharpener.discriminator.parameters(), d_before, strict=True):
        assert not torch.equal(a, b)
    rows = sharpener.metrics["history"]["test"]
    assert [row["step"] for row in rows] == [0, 4]


@pytest.mark.parametrize("number", [0, 1])  # LPIPS is measured at 0, and a constant at 1
def test_the_step_has_the_gradient_of_the_loss_written_out(number, sharpener, monkeypatch):
    config = sharpener.config
    x, labels, mean, std, noise, drawn = sharpener.batch()
    assert (mean.shape, std.shape, drawn.shape) == (noise.shape, noise.shape, (8, 3, 1, 1))
    model, (n, d) = sharpener.vae, (len(x), len(drawn))
    conditional = model.config.num_classes > 0
    token = model.class_token(torch.cat([labels, labels[:d]]) if conditional else None, n + d)
    parts = (None, None) if token is None else token.split([n, d])
    coded = model.decoder_input(mean + std * noise, parts[0])
    u = torch.cat([coded, model.couplings(drawn, parts[1])]).detach()
    told = labels[:d] if conditional else torch.full((d,), 10)
    gradients = caught(monkeypatch, sharpener.optimizer, sharpener.decoder)
    d_gradients = caught(monkeypatch, sharpener.d_optimizer, sharpener.discriminator)
    sharpener.discriminator.eval()  # so that its spectral norms stay as they are
    sharpener.memory.perceptual.fill_(0.2)
    sharpener.steps_done = number
    terms = step.sharpening_step(sharpener, x, labels, told, u, token)

    made, asked = sharpener.decoder(u, token), torch.cat([labels, told])
    y = made[:n]
    share = math.ceil(config.perceptual_share * len(x))
    lpips = sharpener.lpips(x[:share], y[:share]).mean()
    lpips = torch.tensor(0.2) if number else lpips.detach() + config.lazy * (lpips - lpips.detach())
    distortion = F.mse_loss(y, x) + config.w_perceptual * lpips
    nll = 784 / 2 * (torch.log(2 * math.pi * distortion) + 1)
    loss = nll / 784 - config.w_adversarial * sharpener.discriminator(made, asked).mean()
    wanted = torch.autograd.grad(loss, list(sharpener.decoder.parameters()))
    torch.testing.assert_close(tuple(gradients.values()), wanted, rtol=1e-3, atol=1e-6)
    seen = torch.cat([x, x[:d]]), made.detach()
    real, fake = (sharpener.discriminator(part, asked) for part in seen)
    hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    wanted = torch.autograd.grad(hinge, list(sharpener.discriminator.parameters()))
    torch.testing.assert_close(tuple(d_gradients.values()), wanted, rtol=1e-3, atol=1e-6)
    assert terms["accuracy_real"] == (real > 0).float().mean()
    assert terms["accuracy_fake"] == (fake < 0).float().mean()


def test_a_term_is_computed_if_its_weight_is_above_zero(folder, tmp_path):
    for weight, names in (("w_adversarial", {"generator", "discriminator"}),
                          ("w_perceptual", {"perceptual"}), ("w_mse", {"mse"})):  # fmt: skip
        for value in (0.0, 0.5):
            model = vae.VAE.from_pretrained(folder)
            training = SharpenTrainer(model, folder, tmp_path, few(**{weight: value}))
            training.take_step()
            assert {n in training.recent[0] for n in names} == {value > 0}
    with pytest.raises(ValueError, match="w_mse=0 and w_perceptual=0"):
        few(w_mse=0, w_perceptual=0)
    with pytest.raises(ValueError, match=r"drawn_share=1\.5 is not allowed"):
        few(drawn_share=1.5)


def test_draws_of_the_prior_join_a_batch_as_often_as_asked(folder, tmp_path):
    for share, count in ((0.0, 0), (0.25, 4), (1.0, 16)):
        model = vae.VAE.from_pretrained(folder)
        training = SharpenTrainer(model, folder, tmp_path, few(drawn_share=share))
        assert len(training.batch()[-1]) == count
        training.take_step()


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(folder, undrawn):
    whole = vae.sharpen(folder, folder / "whole", few())
    cut = SharpenTrainer(vae.VAE.from_pretrained(folder), folder, folder / "sharp", few())
    (folder / "sharp").mkdir()
    loop.save(advance(cut, 2))
    with pytest.raises(ValueError, match="holds a sharpening of a decoder that was cut off"):
        vae.sharpen(folder, config=few(), resume=False)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        vae.sharpen(folder, config=few(seed=1))
    run = vae.sharpen(folder, config=few())
    assert run.directory == folder / "sharp"
    torch.testing.assert_close(run.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert run.metrics["test"] == whole.metrics["test"]
    assert not (run.directory / "checkpoint.safetensors").exists()

    again = vae.sharpen(folder, config=few())  # loaded
    assert again.metrics == read_metrics(run.directory)
    with pytest.raises(ValueError, match=r"w_adversarial 0\.7 there, 2\.0 here"):
        vae.sharpen(folder, config=few(w_adversarial=2))
    make(latent_size=4, latent_grid=1).save_pretrained(folder)
    with pytest.raises(ValueError, match="a VAE that has changed since its decoder was trained"):
        vae.sharpen(folder, config=few())


def test_what_cannot_be_sharpened_is_refused(folder, capsys):
    with pytest.raises(ValueError, match="holds a run whose decoder was not sharpened"):
        vae.sharpen(folder, folder, few())
    make(latent_size=3).save_pretrained(folder)
    with pytest.raises(ValueError, match="latent_grid=7 leaves no blur to cure"):
        vae.sharpen(folder, config=few())
    (folder / "metrics.json").unlink()
    assert main(["sharpen", str(folder), *FLAGS]) == 2
    assert "a VAE whose training was cut off: finish it first" in capsys.readouterr().err


def test_the_command_leaves_a_run_that_is_measured_again(folder, capsys, unpainted):
    assert main(["sharpen", str(folder), *FLAGS]) == 0
    out = capsys.readouterr().out
    assert "20 test images" in out
    assert f"are in {folder / 'sharp'}" in out
    assert main(["sharpen", str(folder), *FLAGS]) == 0
    assert "nothing is trained" in capsys.readouterr().out
    assert main(["evaluate", str(folder / "sharp"), "--lpips-images", "0"]) == 0
    assert "Largest difference" in capsys.readouterr().out
    drawn = {path.name for path in (folder / "sharp").iterdir()}
    assert drawn >= {"reconstruction.gif", "samples.png", "test_metrics.png", "frames.npz"}
    assert "latent.gif" not in drawn
    (folder / "sharp" / "samples.png").unlink()
    assert main(["render", str(folder / "sharp")]) == 0
    assert {path.name for path in (folder / "sharp").iterdir()} == drawn


def test_two_numbers_lose_their_grey(tmp_path):
    source = asset("global_2")
    trainer = SharpenTrainer(
        vae.VAE.from_pretrained(source), source, tmp_path,
        few(max_train_images=2048, lpips_images=0, w_perceptual=0.0, warmup=0.1),
    )  # fmt: skip

    def grey() -> float:
        z = torch.randn(100, 2, 1, 1, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return (trainer.vae.decode(z).abs() < 0.8).double().mean().item()

    before = grey()
    advance(trainer, 30)
    assert before > 0.22
    assert grey() < 0.2  # real digits: 0.086
