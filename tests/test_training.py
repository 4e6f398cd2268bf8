import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vae
from vae import losses
from vae.cli import main, parser
from vae.config import run_name, with_budget
from vae.optimizer import one_cycle
from vae.training import Trainer


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(module, before):
    return [not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True)]


@pytest.fixture
def trainer(tiny, tmp_path):
    return Trainer(tiny(), tmp_path / "run")


def test_each_optimiser_moves_its_own_parameters_and_no_others(trainer, monkeypatch):
    batch = trainer.next_batch()
    monkeypatch.setattr(trainer.d_optimizer, "step", lambda: None)
    vae_before, d_before = snapshot(trainer.model), snapshot(trainer.discriminator)
    for _ in range(3):  # zero-initialised layers hold back the gradients of those before them
        trainer.training_step(*batch, adversarial=True)
    assert all(moved(trainer.model, vae_before))
    assert not any(moved(trainer.discriminator, d_before))
    monkeypatch.undo()
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    vae_before = snapshot(trainer.model)
    trainer.training_step(*batch, adversarial=True)
    assert not any(moved(trainer.model, vae_before))
    assert all(moved(trainer.discriminator, d_before))
    assert not any(moved(trainer.lpips, snapshot(vae.LPIPS())))


def test_the_step_has_the_gradient_of_the_loss_written_out(tiny, tmp_path, monkeypatch):
    trainer = Trainer(tiny(clip_norm=1e9, beta=0.7, w_adversarial=0.3), tmp_path / "run")
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, labels, noise = trainer.next_batch()
    gradients = {}

    def keep():
        gradients.update({n: p.grad.clone() for n, p in trainer.model.named_parameters()})

    monkeypatch.setattr(trainer.optimizer, "step", keep)
    monkeypatch.setattr(trainer.d_optimizer, "step", lambda: None)
    trainer.training_step(x, labels, noise, adversarial=True)

    model, config = trainer.model, trainer.config
    y, posterior = model(x, labels, noise)
    share = math.ceil(config.perceptual_share * len(x))
    lpips = trainer.lpips(x[:share], y[:share]).mean()
    lpips = lpips.detach() + config.lazy * (lpips - lpips.detach())
    distortion = F.mse_loss(y, x) + config.w_perceptual * lpips
    nll = 784 / 2 * (torch.log(2 * math.pi * distortion) + 1)
    generator = -trainer.discriminator(y).mean()
    last = model.decoder.conv_out.weight
    norms = [torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (nll, generator)]
    weight = (norms[0] / (norms[1] + 1e-6)).detach()
    loss = nll + 0.7 * posterior.kl().mean() + 0.3 * weight * generator
    expected = torch.autograd.grad(loss / 784, list(model.parameters()))
    for (name, _), g in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(gradients[name], g, rtol=1e-3, atol=1e-6)


def test_the_kls_gradient_reaches_the_encoder(tiny, tmp_path, monkeypatch):
    gradients = {}
    for beta in (0.0, 1.0):
        trainer = Trainer(tiny(beta=beta, clip_norm=1e9), tmp_path / str(beta))
        bias = trainer.model.encoder.conv_out.bias
        monkeypatch.setattr(
            trainer.optimizer, "step", lambda b=beta, p=bias: gradients.update({b: p.grad.clone()})
        )
        trainer.training_step(*trainer.next_batch(), adversarial=False)
    assert (gradients[0.0] != gradients[1.0]).all()


TERMS = {  # weight: what it adds to the logged terms
    "w_mse": {"mse"},
    "w_perceptual": {"perceptual"},
    "beta": {"kl", "marginal"},
    "w_marginal": {"marginal"},
    "w_adversarial": {"generator", "adaptive_weight", "discriminator", "accuracy_real"},
}


@pytest.mark.parametrize("classes", [0, 10])
def test_the_couplings_and_nothing_else_heed_the_marginal_kl(classes, tiny, tmp_path, monkeypatch):
    got = {}
    for weight in (0.0, 10.0):
        shape = {"latent_size": 3, "latent_grid": 1, "num_classes": classes}
        config = tiny(shape, w_marginal=weight, beta=0.7, clip_norm=1e9)
        trainer = Trainer(config, tmp_path / str(weight))
        for parameter in trainer.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        x, labels, noise = trainer.next_batch()

        def keep(model=trainer.model, weight=weight):
            got[weight] = {n: p.grad.clone() for n, p in model.named_parameters()}

        monkeypatch.setattr(trainer.optimizer, "step", keep)
        trainer.training_step(x, labels, noise, adversarial=False)
    model = trainer.model
    z = model(x, labels, noise)[1].sample(noise)
    couplings = [f"couplings.{n}" for n, _ in model.couplings.named_parameters()]
    marginal = model.marginal_nll(z, labels).mean() * 0.7 * 10 / 784
    wanted = torch.autograd.grad(marginal, list(model.couplings.parameters()))
    for name, gradient in zip(couplings, wanted, strict=True):
        torch.testing.assert_close(got[10.0][name] - got[0.0][name], gradient, rtol=1e-3, atol=1e-6)
    for name in got[0.0].keys() - set(couplings):
        torch.testing.assert_close(got[10.0][name], got[0.0][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weight", TERMS)
def test_a_term_is_computed_if_its_weight_is_above_zero(weight, tiny, tmp_path):
    for value in (0.0, 0.5):
        config = tiny({"latent_grid": 1}, adversarial_start=0.0, **{weight: value})
        trainer = Trainer(config, tmp_path / str(value))
        trainer.optimize()
        trainer.optimize()  # on which LPIPS and R1 are not computed
        for terms in trainer.recent:
            assert all((term in terms) == (value > 0) for term in TERMS[weight])
            assert all(term.isfinite() for term in terms.values())
    if weight == "w_perceptual":
        assert Trainer(tiny(w_perceptual=0, lpips_images=0), tmp_path / "none").lpips is None


def test_the_penalty_holds_the_discriminator_back(tiny, tmp_path, digits):
    def gradient_at_real(weight):
        trainer = Trainer(tiny(), tmp_path / str(weight))
        for _ in range(20):
            trainer.penalty.fill_(weight)
            trainer.discriminator_step(digits, F.avg_pool2d(digits, 3, 1, 1))
        x = digits.clone().requires_grad_()
        return losses.gradient_penalty(trainer.discriminator(x), x).item()

    assert gradient_at_real(1.0) < 0.5 * gradient_at_real(0.0)


def test_the_penalty_rises_while_the_discriminator_is_right_too_often_and_falls_else(
    tiny, tmp_path, digits
):
    for accuracy, moved_by in ((0.5, 1), (1.0, -1)):
        trainer = Trainer(tiny(discriminator_accuracy=accuracy), tmp_path / str(accuracy))
        for _ in range(10):
            before = trainer.penalty.item()
            terms = trainer.discriminator_step(digits, -torch.ones_like(digits))
            right = (terms["accuracy_real"] + terms["accuracy_fake"]).item() / 2
            expected = before * math.exp(0.1 * (right - accuracy))
            assert trainer.penalty.item() == pytest.approx(expected, rel=1e-4)
        assert moved_by * (trainer.penalty.item() - 0.05) > 0


def test_the_average_of_the_weights_is_what_is_saved(trainer):
    expected = snapshot(trainer.model)
    for step in range(3):
        trainer.optimize()
        decay = min(trainer.config.ema_decay, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p for e, p in
                    zip(expected, trainer.model.parameters(), strict=True)]  # fmt: skip
    trainer.run.save()
    saved = vae.VAE.from_pretrained(trainer.directory)
    for ours, e in zip(saved.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, e)


def test_processes_share_a_batch_between_them(trainer):
    x, _, noise = trainer.next_batch()
    parts = []
    for rank in range(2):
        trainer.accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        parts.append(trainer.next_batch())
    for column, whole in ((0, x), (2, noise)):
        first, second = (part[column] for part in parts)
        assert torch.equal(torch.stack([first, second], dim=1).flatten(0, 1), whole)


def test_every_step_epoch_and_seed_has_its_own_images_and_noise(tiny, tmp_path):
    def batch(seed, step):
        trainer = Trainer(tiny(seed=seed), tmp_path / "run")
        while trainer.step < step:  # an epoch's order is drawn at its first step
            trainer.next_batch()
            trainer.step += 1
        return trainer.next_batch()

    first = batch(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, batch(0, 0), strict=True) if b is not None)
    for other in (batch(0, 1), batch(0, 16), batch(1, 0)):  # step, epoch (of 16 steps), seed
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[2], other[2])


def test_the_discriminator_is_told_which_images_are_real(trainer, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        trainer, "discriminator_step", lambda real, fake: seen.update(real=real, fake=fake) or {}
    )
    x, labels, noise = trainer.next_batch()
    trainer.training_step(x, labels, noise, adversarial=True)
    assert seen["real"] is x
    assert not torch.equal(seen["fake"], x)
    assert not seen["fake"].requires_grad


def test_learning_rate_rises_then_falls_to_zero():
    share = one_cycle(0.1, 100)
    rates = [share(step) for step in range(101)]
    assert rates[9] == rates[10] == 1
    assert rates[0] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0)
    assert one_cycle(0.01, 1)(0) == 1


def test_the_budget_decides_what_is_left_open(monkeypatch):
    def decided(budget="auto", **options):
        config = with_budget(vae.TrainConfig(**options), budget)
        return config.epochs, config.max_train_images, config.max_test_images

    for has_gpu, expected in ((False, (1, 24_000, None)), (True, (3, None, None))):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert decided() == expected
        assert decided(epochs=2) == (2, None, None)
        assert decided("full", epochs=2, max_train_images=99) == (2, 99, None)
        assert decided("tiny", max_test_images=50) == (1, 320, 50)
    with pytest.raises(ValueError, match="budget='long'"):
        decided("long")


def test_a_runs_name_says_what_differs_from_the_defaults():
    assert run_name(vae.TrainConfig(vae.VAEConfig(latent_size=16))) == "latent_16"
    model = vae.VAEConfig(latent_size=8, latent_grid=1, num_classes=10)
    config = vae.TrainConfig(model, dataset="fashion_mnist", beta=0.5, epochs=2, seed=3)
    assert run_name(config) == "fashion_mnist_latent_8_grid_1_conditional_beta_0.5_epochs_2_seed_3"


def test_penalty_and_hinge_train_a_discriminator(trainer, digits):
    blurred = F.avg_pool2d(digits, 3, 1, 1)
    for _ in range(60):
        terms = trainer.discriminator_step(digits, blurred)
    assert terms["accuracy_real"] > 0.7
    assert terms["accuracy_fake"] > 0.7
    assert terms["discriminator"] < 1.5


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run with everything in it, through the command line."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    arguments = (
        "train --latent-size 3 --channels 8 16 16 --num-classes 10 --epochs 2 --batch-size 32 "
        "--max-train-images 1920 --max-test-images 100 --projected-images 100 --lpips-images 10 "
        f"--perceptual-share 0.05 --learning-rate 5e-3 --run-dir {directory}"
    )
    assert main(arguments.split()) == 0
    return vae.Run.load(directory)


def test_training_lowers_the_negative_elbo_on_real_digits(finished):
    history = finished.metrics["history"]["test"]
    assert finished.metrics["test"]["neg_elbo"] < history[0]["neg_elbo"] - 100
    assert finished.metrics["test"]["sample"]["mse"] < history[0]["mse"] / 1.5


def test_a_runs_folder_holds_what_it_should(finished):
    metrics = finished.metrics
    assert {"torch", "device", "hardware"} <= set(metrics["environment"])
    assert metrics["config"]["model"]["latent_size"] == 3
    assert set(metrics["test"]["sample"]) == {"mse", "ssim", "psnr", "lpips"}
    assert metrics["test"]["latent_values"] == 147
    assert metrics["test"]["kl"] > 0
    epochs = [row["epoch"] for row in metrics["history"]["test"]]
    assert len(epochs) == 5 + 2
    assert epochs == sorted(epochs)
    assert epochs[-2:] == [1, 2]
    names = {"mse", "ssim", "psnr", "lpips", "kl", "neg_elbo"}
    assert all(names <= set(row) for row in metrics["history"]["test"])
    train = metrics["history"]["train"]
    assert train[-1]["epoch"] == 2
    assert {"mse", "perceptual", "kl", "nll", "discriminator", "accuracy_fake"} <= set(train[-1])
    assert "discriminator" not in train[0]
    names = {path.name for path in finished.directory.iterdir()}
    assert names == {
        "model.safetensors", "config.json", "metrics.json", "frames.npz", "reconstruction.gif",
        "latent.gif", "train_metrics.png", "test_metrics.png", "samples.png",
        "interpolation.gif", "digits.png", ".lock",
    }  # fmt: skip


def test_gifs_have_a_frame_for_each_evaluation_and_render_draws_them_again(finished):
    names = ("reconstruction.gif", "latent.gif")
    drawn = {name: (finished.directory / name).read_bytes() for name in names}
    for name in names:
        path = finished.directory / name
        with Image.open(path) as gif:
            assert gif.n_frames == 7
            assert gif.width >= 800
            assert gif.info["loop"] == 0
            first = np.asarray(gif.convert("L"), float)
            gif.seek(6)
            assert np.abs(np.asarray(gif.convert("L"), float) - first).max() > 50
        assert path.stat().st_size < 2.5e6
        path.unlink()
    assert main(["render", str(finished.directory)]) == 0
    assert drawn == {name: (finished.directory / name).read_bytes() for name in names}


def test_evaluate_repeats_the_numbers(finished, capsys):
    assert main(["evaluate", str(finished.directory), "--lpips-images", "0"]) == 0
    printed = capsys.readouterr().out
    assert "100 test images, 147 latent values" in printed
    difference = float(printed.split("KL: ")[1])
    assert difference < 1e-6


def test_a_finished_run_is_loaded_or_refused_and_never_overwritten(finished, capsys):
    before = (finished.directory / "metrics.json").read_bytes()
    config = vae.TrainConfig(**finished.metrics["config"])
    assert vae.train(config, finished.directory).metrics == finished.metrics
    other = replace(config, beta=0.5, model=replace(config.model, latent_size=4))
    with pytest.raises(ValueError, match=r"run_dir=.*latent_size 3 there, 4 here.*") as error:
        vae.train(other, finished.directory)
    assert "beta 1.0 there, 0.5 here" in str(error.value)
    assert "channels" not in str(error.value)
    assert main(["train", "--run-dir", str(finished.directory)]) == 2
    assert "other settings" in capsys.readouterr().err
    assert (finished.directory / "metrics.json").read_bytes() == before


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path):
    def weights(name, seed):
        trainer = Trainer(tiny(seed=seed, adversarial_start=0.0), tmp_path / name)
        for _ in range(3):
            trainer.optimize()
        return torch.cat([p.flatten() for p in trainer.ema.parameters()])

    assert torch.equal(weights("a", 1), weights("b", 1))
    assert not torch.equal(weights("a", 1), weights("c", 2))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_model(
    tiny, tmp_path, monkeypatch
):
    step = Trainer.training_step

    def poisoned(self, x, labels, noise, adversarial):
        if self.step == 11:
            noise = noise * math.nan
        return step(self, x, labels, noise, adversarial)

    monkeypatch.setattr(Trainer, "training_step", poisoned)
    with pytest.raises(FloatingPointError, match="mse is nan at step 12"):
        vae.train(tiny(), tmp_path)
    model = vae.VAE.from_pretrained(tmp_path)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["history"]["test"][-1]["step"] == 11
    assert "test" not in metrics


@pytest.mark.parametrize("precision", ["bf16", "no"])
@pytest.mark.parametrize("grid", [1, 7])
def test_precisions_and_grids_train(precision, grid, tiny, tmp_path):
    config = tiny({"latent_grid": grid}, mixed_precision=precision, adversarial_start=0.0)
    trainer = Trainer(config, tmp_path)
    for _ in range(5):
        trainer.optimize()
    terms = trainer.recent
    assert all(value.isfinite() for step in terms for value in step.values())
    assert terms[-1]["mse"] < terms[0]["mse"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dataset", "cifar"),
        ("epochs", 0),
        ("batch_size", 0),
        ("max_train_images", 0),
        ("learning_rate", 0.0),
        ("beta", -1.0),
        ("w_perceptual", math.nan),
        ("perceptual_share", 0.0),
        ("adversarial_start", 1.5),
        ("ema_decay", 1.0),
        ("mixed_precision", "int8"),
        ("lpips_variant", "v9"),
        ("seed", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*not allowed"):
        vae.TrainConfig(**{setting: value})


def test_settings_that_do_not_fit_are_refused_before_any_work(tiny, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="w_mse=0 and w_perceptual=0"):
        vae.TrainConfig(w_mse=0, w_perceptual=0)
    with monkeypatch.context() as no_gpu:
        no_gpu.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=r"mixed_precision='fp16'.*CUDA"):
            vae.train(tiny(mixed_precision="fp16"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"num_classes=5.*10 classes"):
        vae.train(tiny({"num_classes": 5}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"batch_size=64.*50 training images"):
        vae.train(tiny(batch_size=64, max_train_images=50), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"run_dir=.*is a file"):
        vae.train(tiny(), tmp_path / "file")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 2**20}))
    with pytest.raises(OSError, match="1 MiB free"):
        vae.train(tiny(), tmp_path / "run")


def test_no_space_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    model = vae.VAE(vae.VAEConfig(channels=(8, 16, 16)))
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    script = (
        "import pathlib, resource, signal, sys, vae\n"
        "from vae.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path = pathlib.Path(sys.argv[1]) / 'metrics.json'\n"
        "try: write_atomically(path, lambda path: path.write_bytes(bytes(5000)))\n"
        "except OSError as error: assert str(path) in str(error)\n"
        "else: raise SystemExit('no error')\n"
        "vae.VAE(vae.VAEConfig(channels=(8, 16, 16))).save_pretrained(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert f"OSError: {tmp_path}/model.safetensors could not be written" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damaged_runs_are_refused_by_name(finished, tmp_path):
    for name, content in (
        ("metrics.json", "{"),
        ("metrics.json", "{}"),
        ("metrics.json", '{"config": {}, "history": {"train": [3]}}'),
        ("frames.npz", "x"),
    ):
        for path in finished.directory.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / name).write_text(content)
        with pytest.raises(vae.FileError, match=name):
            vae.Run.load(tmp_path)


def test_every_setting_is_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["train", "--help"])
    shown = capsys.readouterr().out
    for flag in ("--latent-size", "--latent-grid", "--epochs", "--seed", "--run-dir",
                 "--max-train-images", "--beta", "--w-perceptual", "--w-adversarial",
                 "--no-self-attention"):  # fmt: skip
        assert flag in shown


def test_a_users_mistake_is_one_line(capsys):
    assert main(["train", "--latent-grid", "5"]) == 2
    assert capsys.readouterr().err == "vae: latent_grid=5 is not allowed: one of (1, 7)\n"
    assert main(["evaluate", "/no/such/folder"]) == 2
    assert "/no/such/folder/config.json does not exist" in capsys.readouterr().err
