"""Other devices and precisions than a CPU's: fp16 as on a T4, and tensors that lie elsewhere."""

import warnings
from dataclasses import replace

import pytest
import torch
from elsewhere import DEVICE, WAITS, Elsewhere, present
from helpers import HalfPrecision, make, small_prior

import vae
from vae.machinery import loop
from vae.machinery.latents import PriorTrainer, fit_couplings
from vae.machinery.machine import Machine
from vae.machinery.sharpening import SharpenTrainer
from vae.machinery.trainings import Trainer

TRAININGS = ("7x7, all four terms", "1x1, conditional", "prior", "sharpen")


def begin(name, folder, precision=Machine, **options):
    """One of the trainings, that can take ten steps and more."""
    few = {"epochs": 3, "max_train_images": 128, **options}
    with pytest.MonkeyPatch.context() as patched:
        for module in ("vae", "prior", "sharpen"):
            patched.setattr(f"vae.training.{module}.Machine", precision)
        if name == "prior":
            return PriorTrainer(vae.VAE.from_pretrained(folder), folder, small_prior(**few))
        classes = {"num_classes": 10} if "conditional" in name else {}
        if "sharpen" in name:
            plain = make(latent_size=3, latent_grid=1, posterior="coupled", **classes).eval()
            config = vae.SharpenConfig(**few, batch_size=32, lpips_images=4, frames=4)
            return SharpenTrainer(plain, folder, folder / "run", config)
        model = vae.VAEConfig(2, channels=(8, 16, 16))
        config = vae.TrainConfig(
            model, beta=0.1, max_test_images=20, projected_images=20, adversarial_start=0.25,
            perceptual_share=0.05, w_perceptual=0.05, w_adversarial=0.1, lpips_images=4,
            early_evaluations=0, frames=4, mixed_precision="no", **few,
        )  # fmt: skip
        if name.startswith("1x1"):
            config = replace(config, model=replace(model, latent_grid=1, **classes))
        if "coupled" in name:
            coupled = {"latent_size": 3, "posterior": "coupled"}
            config = replace(config, model=replace(config.model, **coupled))
        return Trainer(config, folder / "run")


@pytest.mark.parametrize("name", TRAININGS)
def test_ten_steps_in_fp16_are_near_float32s_and_go_on_from_a_checkpoint(name, folder, capfd):
    (folder / "run").mkdir()
    plain = begin(name, folder)
    half, resumed = (begin(name, folder, HalfPrecision) for _ in range(2))
    assert half.machine.mixed_precision == "fp16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(10):
            plain.take_step()
            half.take_step()
            ours, theirs = half.log.recent[-1], plain.log.recent[-1]
            assert all(value.isfinite() for value in ours.values()), ours
            first = "loss" if name == "prior" else "mse"
            assert ours[first].item() == pytest.approx(theirs[first].item(), rel=0.05)
            if "kl" in ours:
                assert ours["kl"].item() == pytest.approx(theirs["kl"].item(), rel=0.1, abs=0.5)
            if "adaptive_weight" in ours and step == 3:  # the first with a discriminator
                weights = [terms["adaptive_weight"].item() for terms in (ours, theirs)]
                assert weights[0] == pytest.approx(weights[1], rel=0.1)
        half.measure()
        half.machine.scaler.update(64.0)
        loop.save(half)
        loop.restore(resumed)
        assert resumed.machine.scaler.get_scale() == 64
        for trainer in (half, resumed):
            trainer.take_step()
    pairs = zip(half.averaged.parameters(), resumed.averaged.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert half.step == resumed.step == 11
    used = {"float16" in str(p.dtype) for p in half.averaged.parameters()}
    assert used == {False}  # the weights stay float32
    assert capfd.readouterr().err == ""


def test_an_overflow_in_fp16_skips_the_step_and_halves_the_scale(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.machinery.trainings.Machine", HalfPrecision)
    config = vae.TrainConfig(
        vae.VAEConfig(2, 1, channels=(8, 16, 16)), epochs=1, max_train_images=64, w_perceptual=0,
        max_test_images=20, lpips_images=0, adversarial_start=1.0, mixed_precision="no",
    )  # fmt: skip
    trainer = Trainer(config, tmp_path)
    before = [p.clone() for p in trainer.averaged.parameters()]
    scaler = trainer.machine.scaler
    trainer.averaged.encoder.conv_out.bias.register_hook(lambda gradient: gradient * torch.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.take_step()
    pairs = zip(before, trainer.averaged.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert scaler.get_scale() == 2.0**11


@pytest.mark.parametrize(("size", "moved"), [(0.25, 0.25), (4.0, 0.5)])
def test_a_gradient_in_fp16_is_clipped_as_it_is_and_not_as_it_is_scaled(size, moved):
    machine, layer = HalfPrecision("fp16"), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    module, optimizer = machine.prepare(layer, torch.optim.SGD(layer.parameters(), 1.0))
    machine.backward(size * module(torch.ones(1, 1)).sum())
    machine.descend(module, optimizer, clip_norm=0.5)
    assert -layer.weight.item() == pytest.approx(moved, rel=1e-3)


class Away(Machine):
    """A machine whose device is not the CPU."""

    device = property(lambda self: DEVICE)


@pytest.mark.parametrize("name", TRAININGS)
def test_no_tensor_is_left_on_the_cpu(name, folder):
    """All of it: steps, evaluations, frames, checkpoints, draws."""
    with present():
        training = begin(name, folder, Away)
        (folder / "run").mkdir()
        for _ in range(3):
            training.take_step()
        loop.save(training)
        training = begin(name, folder, Away)
        assert loop.complete(training, resume=True)
        assert training.log.seconds > 0
        assert {type(p.data) for p in training.ema.parameters()} == {Elsewhere}
        terms = training.metrics["history"]["train"][-1]
        assert "generator" in terms or name == "prior"
        if name == "prior":
            prior, model = training.ema, training.vae
            assert type(model.sample(2, [3, 4], prior=prior)) is Elsewhere
        else:
            if name != "sharpen":  # whose first frame is of step 0
                assert len(training.frames.epochs) == 2  # of the steps from the fourth on
            labels, model = 7 if name.startswith("1x1") else None, training.result
            assert type(model.sample(2, labels)) is Elsewhere
            images, digits = (part[:10] for part in training.test_set)
            found = vae.evaluate(model.train(), images, digits, lpips_images=2)
            bound = vae.importance_weighted_bound(model, images, 0.1, digits, samples=4)
            assert found["images"] == len(bound) == 10
            assert vae.active_units(model, images, digits) <= model.config.latent_values
            judged = vae.machinery.judge_images(images, digits, reference=images, neighbours=images)
            assert judged["nearest"] == 0


def test_a_tensor_that_is_left_on_the_cpu_is_noticed(folder, monkeypatch):
    with present():
        with pytest.raises(RuntimeError, match=r"tensors on lazy:0, and on the CPU of shape \[\(2"):
            torch.ones(2).to(DEVICE) + torch.ones(2)
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            torch.stack([torch.ones(()).to(DEVICE), torch.ones(())])
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            torch.ones(2)[torch.zeros(2, dtype=torch.int64).to(DEVICE)]
        monkeypatch.setattr(Away, "deal", lambda self, batch: batch)
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            begin("prior", folder, Away).take_step()


@pytest.mark.parametrize("name", [*TRAININGS, "1x1, coupled", "sharpen, conditional"])
def test_nothing_waits_for_the_device_between_two_looks_at_the_losses(name, folder):
    (folder / "run").mkdir()
    with present():
        training = begin(name, folder, Away)
        for _ in range(4):  # the fourth is the first with all terms
            training.take_step()
        training.log.recent.clear()
        WAITS.clear()
        for _ in range(2):  # the first of a pass, with LPIPS and the penalty, and one without
            training.take_step()
        assert not WAITS
        training.log.look(training)
        assert len(WAITS) == 1


def test_nor_does_a_step_of_the_couplings(folder):
    (folder / "run").mkdir()
    with present():
        training, waits = begin("1x1, conditional", folder, Away), []
        for steps in (1, 4):
            WAITS.clear()
            fit_couplings(training.result, training.train_set, training.config, steps)
            waits.append(len(WAITS))
    assert waits[0] == waits[1]


def test_a_wait_is_noticed():
    with present():
        x, picked = torch.ones(2).to(DEVICE), torch.ones(2)
        for wait in (
            x.sum().item, x.cpu, x.tolist, x.nonzero, lambda: bool(x.sum()), lambda: x[x > 0],
            lambda: picked.copy_(x), lambda: picked.to(DEVICE), lambda: x.unique(),
            lambda: picked.pin_memory().to(DEVICE), lambda: picked.to(DEVICE, non_blocking=True),
            lambda: x.masked_select(x > 0), lambda: torch.equal(x, x),
            lambda: x.index_put_((x > 0,), x.sum()),
        ):  # fmt: skip
            WAITS.clear()
            wait()
            assert len(WAITS) == 1, wait
        WAITS.clear()
        picked.pin_memory().to(DEVICE, non_blocking=True).clamp(0, 1).masked_fill(x > 0, 1)
        assert not WAITS
