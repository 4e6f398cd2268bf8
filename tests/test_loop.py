"""The loop of every training: order, noise, schedule, average, checkpoints, what is not finite."""

import itertools
import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import interrupt_at, snapshot

import vae
from vae.store.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vae.store.files import FileError, save_tensors
from vae.training import loop
from vae.training.machine import Machine
from vae.training.optimizer import one_cycle
from vae.training.vae import Trainer


def test_checkpoints_come_in_time(small, tmp_path, monkeypatch):
    config, _ = small
    saved = []
    monkeypatch.setattr(loop, "save", lambda trainer: saved.append(trainer.step))
    monkeypatch.setattr(Trainer, "measure", lambda self: None)
    monkeypatch.setattr(Trainer, "finish", lambda self, started: None)
    vae.train(replace(config, early_evaluations=0), tmp_path / "seldom")
    assert saved == [12, 24]  # at the evaluations
    assert loop.CHECKPOINT_SECONDS <= 120
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    saved.clear()
    vae.train(replace(config, epochs=1), tmp_path / "often")
    assert saved == list(range(1, 13))


def test_a_checkpoint_keeps_the_order_of_the_losses(small, tmp_path):
    config, _ = small  # the last bit of a mean over a column depends on where the column stands
    trainer, other = Trainer(config, tmp_path), Trainer(config, tmp_path)
    trainer.optimize()
    loop.save(trainer)
    loop.restore(other)
    assert list(other.log.recent[0].items()) == list(trainer.log.recent[0].items())


def test_weights_that_are_not_finite_are_not_saved(small, tmp_path):
    config, _ = small
    trainer = Trainer(config, tmp_path)
    trainer.optimize()
    loop.save(trainer)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with torch.no_grad():
        trainer.networks.model.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"model\.decoder\.conv_out\.bias is not finite"):
        loop.save(trainer)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_a_checkpoint_of_another_shape_is_refused_by_name(small, tmp_path, monkeypatch):
    config, _ = small
    interrupt_at(monkeypatch, 2, 2)
    vae.train(config, tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    tensors, state = load_checkpoint(path)
    first = next(name for name in tensors if name.startswith("optimizer."))
    for change in (
        {"ema.decoder.conv_out.bias": torch.zeros(7)},
        {first: torch.zeros(1)},  # which would be broadcast
        {"optimizer.99999.momentum": torch.zeros(3)},
        {"frames.labels": torch.full((40,), 10)},
        {"recent.mse": torch.zeros(5)},
    ):
        save_tensors(path, tensors | change, {"state": json.dumps(state)})
        with pytest.raises(FileError, match="checkpoint"):
            vae.train(config, tmp_path)
    save_tensors(path, tensors, {"state": json.dumps(state | {"step": 10**6})})
    with pytest.raises(FileError, match="step 1000000 of 24"):
        vae.train(config, tmp_path)


EXTREMES = {
    "beta 0": {"beta": 0.0},
    "beta 100": {"beta": 100.0},
    "ten times the learning rate": {"learning_rate": 6e-2, "discriminator_lr": 1e-1},
    "a batch of 1": {"batch_size": 1, "max_train_images": 24},
    "latent of 64": {"model": vae.VAEConfig(64, channels=(8, 16, 16))},
}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("options", EXTREMES.values(), ids=EXTREMES)
def test_extreme_settings_stay_finite(options, precision, small, tmp_path):
    config, _ = small
    config = replace(config, **{"mixed_precision": precision, "adversarial_start": 0.0} | options)
    trainer = Trainer(config, tmp_path)
    for _ in range(12):
        trainer.optimize()
    for terms in trainer.log.recent:
        assert all(value.isfinite() for value in terms.values()), terms
    loop.save(trainer)  # which raises unless weights and optimisers are finite
    measured = trainer.evaluate(lpips_images=0)
    assert all(np.isfinite(value) for value in measured["sample"].values())


def test_the_average_of_the_weights_is_what_is_saved(trainer):
    expected = snapshot(trainer.networks.model)
    for step in range(3):
        trainer.optimize()
        decay = min(trainer.config.ema_decay, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p for e, p in
                    zip(expected, trainer.networks.model.parameters(), strict=True)]  # fmt: skip
    trainer.run.save()
    saved = vae.VAE.from_pretrained(trainer.directory)
    for ours, e in zip(saved.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, e)


def test_processes_share_a_batch_between_them(trainer):
    x, _, noise = trainer.next_batch()
    parts = []
    for rank in range(2):
        part = SimpleNamespace(num_processes=2, process_index=rank, device=trainer.device)
        trainer.machine = SimpleNamespace(deal=partial(Machine.deal, part))
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


def test_learning_rate_rises_then_falls_to_zero():
    share = one_cycle(0.1, 100)
    rates = [share(step) for step in range(101)]
    assert rates[9] == rates[10] == 1
    assert rates[0] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0)
    assert one_cycle(0.01, 1)(0) == 1


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

    def poisoned(self, x, labels, noise):
        return step(self, x, labels, noise * math.nan if self.step == 11 else noise)

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
    terms = trainer.log.recent
    assert all(value.isfinite() for step in terms for value in step.values())
    assert terms[-1]["mse"] < terms[0]["mse"]
