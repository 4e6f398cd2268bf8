"""The loop of every training: order, noise, schedule, average, checkpoints, what is not finite."""

import json
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TIMED, advance, interrupt_at, snapshot

import vae
from vae import Trainer, metrics
from vae.machinery import loop
from vae.machinery.folder import CHECKPOINT_NAME, load_checkpoint
from vae.machinery.latents import PriorTrainer
from vae.machinery.machine import interrupts, warn_of_load
from vae.machinery.optimizer import one_cycle, plateau
from vae.machinery.sharpening import SharpenTrainer
from vae.pretrained import FileError, save_tensors


def measured_steps(training, monkeypatch) -> list[int]:
    """The steps after which it measures, in place of measuring."""
    steps = []
    monkeypatch.setattr(training.recorder, "measure", lambda: steps.append(training.steps_done))
    return steps


def test_checkpoints_come_in_time(begin, monkeypatch):
    assert loop.CHECKPOINT_SECONDS <= 60
    saved, evaluations = [], [1, 4, 6, 8]
    monkeypatch.setattr(loop, "save", lambda training: saved.append(training.steps_done))
    for seconds, expected in ((loop.CHECKPOINT_SECONDS, evaluations), (0, [*range(1, 9)])):
        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
        training = begin()
        training.measure_after |= {1, 6}
        measured = measured_steps(training, monkeypatch)
        assert loop.take_steps(training)
        assert (measured, saved) == (evaluations, expected)
        saved.clear()


@pytest.mark.unix
def test_ctrl_c_finishes_the_step_and_a_second_one_stops_at_once(begin, monkeypatch, undrawn):
    before = signal.getsignal(signal.SIGINT)
    interrupt_at(monkeypatch, 3, 5, 5)
    training = begin()
    path = training.checkpoint
    assert not loop.train(training, resume=False)
    assert load_checkpoint(path)[1]["step"] == training.steps_done == 3
    assert training.metrics["interrupted"] == 3
    with pytest.raises(ValueError, match=f"{training.name} that was cut off"):
        loop.train(begin(), resume=False)
    training = begin()
    with pytest.raises(KeyboardInterrupt):
        loop.train(training, resume=True)
    assert training.steps_done == load_checkpoint(path)[1]["step"] == 4
    assert signal.getsignal(signal.SIGINT) is before
    training = begin()
    assert loop.train(training, resume=True)
    assert "interrupted" not in training.metrics
    assert not path.exists()


@pytest.mark.unix
def test_a_training_in_a_thread_or_beside_others_is_interrupted_as_ever():
    before = signal.getsignal(signal.SIGINT)
    with interrupts(2) as asked:
        assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background
    with interrupts(1):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, before)

    def run():
        with interrupts(1) as asked:  # where Python allows no handler
            return asked

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == asked == []


@pytest.mark.unix
@pytest.mark.parametrize(("load", "threads", "said"), [(1.0, 2, 1), (0.9, 2, 0), (5.0, 1, 0)])
def test_one_line_names_one_thread_where_half_of_the_cores_were_busy(
    load, threads, said, monkeypatch, capsys
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    warn_of_load()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert all(f"{load} of 2 cores" in line and "--threads 1" in line for line in lines)


def test_each_step_is_taken_at_the_learning_rate_of_the_schedule(begin):
    training, other = begin(), begin()
    config = training.config
    share, parts = one_cycle(config.warmup, 8), [1.0, 0.5]  # of Muon and its AdamW
    constant = [0.01, 0.005] * isinstance(training, Trainer)  # the discriminator's
    if isinstance(training, SharpenTrainer):  # Adam alone
        share, parts, constant = plateau(config.warmup, config.fall, 8), [1.0], [0.001]

    def rates(training):
        groups = [g for one in training.optimizers.values() for g in one.param_groups]
        seen, step = [], training.step_on
        training.step_on = lambda *batch: seen.append([g["lr"] for g in groups]) or step(*batch)
        advance(training, 3)
        return seen

    def expected(*steps):
        peaks = [part * config.learning_rate for part in parts]
        return [pytest.approx([*(p * share(n) for p in peaks), *constant]) for n in steps]

    assert rates(training) == expected(0, 1, 2)
    loop.save(training)
    loop.restore(other)
    assert rates(other) == expected(3, 4, 5)


def test_learning_rates_rise_and_fall_to_zero():
    shares = one_cycle(0.1, 100), plateau(0.1, 0.3, 100)
    cycle, flat = ([share(step) for step in range(101)] for share in shares)
    assert cycle[0] == flat[0] == pytest.approx(0.1)
    assert cycle[9] == cycle[10] == 1
    assert cycle[10:] == sorted(cycle[10:], reverse=True)
    assert flat[9:71] == [pytest.approx(1)] * 62
    assert flat[85] == pytest.approx(0.5)
    assert cycle[100] == pytest.approx(0)
    assert flat[100] == 0
    assert one_cycle(0.01, 1)(0) == 1


def test_the_average_of_the_weights_is_what_is_saved(begin, undrawn):
    training = begin()
    expected = snapshot(training.averaged)
    for step in range(3):
        training.take_step()
        decay = min(training.config.ema_decay, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p for e, p in
                    zip(expected, training.averaged.parameters(), strict=True)]  # fmt: skip
    training.recorder.measure() if isinstance(training, Trainer) else training.finish(0.0)
    kind = vae.LatentPrior if isinstance(training, PriorTrainer) else vae.VAE
    saved = kind.from_pretrained(training.directory)
    saved = saved.decoder if isinstance(training, SharpenTrainer) else saved
    torch.testing.assert_close([*saved.parameters()], expected)


def test_a_measurement_is_of_the_average_and_the_same_when_it_is_made_again(begin):
    training = advance(begin(), 2)

    def measured():
        training.recorder.measure()
        row = training.metrics["history"]["test"][-1]
        assert (row["step"], row["epoch"]) == (2, 0.5)
        return {k: v for k, v in row.items() if k not in TIMED}

    first = measured()
    with torch.no_grad():
        for parameter in training.averaged.parameters():
            parameter.zero_()
        assert measured() == first
        for parameter in training.ema.parameters():
            parameter.add_(0.1)
    assert measured() != first


def test_every_step_epoch_and_seed_has_its_own_images_and_noise(begin):
    def batch(seed, step):
        training = begin(seed=seed)
        while training.steps_done < step:  # an epoch's order is drawn at its first step
            training.batch()
            training.steps_done += 1
        return training.batch()

    def differ(batch, other):
        return [not torch.equal(a, b) for a, b in zip(batch, other, strict=True) if b is not None]

    first = batch(0, 0)
    assert not any(differ(first, batch(0, 0)))
    for other in (batch(0, 1), batch(0, 4), batch(1, 0)):  # step, epoch (of 4 steps), seed
        assert all(differ(first, other)), differ(first, other)


def test_a_pass_sees_each_image_once(begin, monkeypatch):
    training = begin(max_train_images=76, epochs=3)  # the 12 that are left come in another pass
    monkeypatch.setattr(training, "select", lambda index: (index,))
    passes = []
    for _ in range(3):
        seen = []
        for _ in range(4):
            seen += training.batch()[0].tolist()
            training.steps_done += 1
        assert len(set(seen)) == len(seen) == 64
        passes.append(seen)
    assert len(set().union(*passes)) > 71
    assert len({tuple(seen) for seen in passes}) == 3


def test_a_row_of_the_history_is_the_average_of_the_steps_since_the_last(begin, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 3)
    training = begin(epochs=2)
    step, terms, framed = training.step_on, [], []
    monkeypatch.setattr(training, "step_on", lambda *b: terms.append(step(*b)) or terms[-1])
    measured_steps(training, monkeypatch)
    training.measure_after |= {1}
    training.frame_after = {5}
    training.recorder.record_frame = lambda: framed.append(training.steps_done)
    loop.take_steps(training)
    assert framed == [5]
    rows, ends = training.metrics["history"]["train"], [1, 4, 5, 8]
    if isinstance(training, Trainer):  # from step 3 on there are the discriminator's terms
        ends.insert(1, 2)
        assert ["discriminator" in row for row in rows] == [False, False, True, True, True]
    assert [row["step"] for row in rows] == ends
    assert [row["epoch"] for row in rows] == [end / 4 for end in ends]
    for row, start, end in zip(rows, [0, *ends], ends, strict=False):
        for name in terms[start]:
            mean = sum(row[name].item() for row in terms[start:end]) / (end - start)
            assert row[name] == pytest.approx(mean, rel=1e-5), name
    images = [16 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    seconds = [n / row["images_per_second"] for n, row in zip(images, rows, strict=True)]
    assert training.seconds == pytest.approx(sum(seconds))


def test_what_a_step_leaves_for_the_next_is_in_the_checkpoint(small, tmp_path):
    weights = {"w_adversarial": 0.1, "w_perceptual": 0.05, "adversarial_start": 0.0}
    config = replace(small[0], model=replace(small[0].model, latent_grid=1), **weights)
    trainer, other = advance(Trainer(config, tmp_path), 2), Trainer(config, tmp_path)
    loop.save(trainer)
    loop.restore(other)
    left = dict(trainer.memory.named_buffers())
    assert left["perceptual"] > 0
    assert left["penalty"] != pytest.approx(0.05, rel=1e-6)
    assert left["codes"].any()
    torch.testing.assert_close(dict(other.memory.named_buffers()), left, rtol=0, atol=0)
    assert other.seconds > trainer.seconds == 0  # of which no row tells yet
    rows = [list(one.recent[0].items()) for one in (trainer, other)]
    assert rows[0] == rows[1]  # in order: the last bit of a mean depends on where a column stands


def test_weights_that_are_not_finite_are_not_saved(small, tmp_path):
    trainer = advance(Trainer(small[0], tmp_path), 1)
    loop.save(trainer)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with torch.no_grad():
        trainer.model.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"model\.decoder\.conv_out\.bias is not finite"):
        loop.save(trainer)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


@pytest.mark.unix
def test_a_checkpoint_of_another_shape_is_refused_by_name(small, tmp_path, monkeypatch):
    config, _ = small
    interrupt_at(monkeypatch, 2)
    vae.train(config, tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    tensors, state = load_checkpoint(path)
    first = next(name for name in tensors if name.startswith("model_optimizer."))
    for change in (
        {"ema.decoder.conv_out.bias": torch.zeros(7)},
        {first: torch.zeros(1)},  # which would be broadcast
        {"model_optimizer.99999.momentum": torch.zeros(3)},
        {"frames.labels": torch.zeros(39)},
        {"recent.mse": torch.zeros(5)},
    ):
        save_tensors(path, tensors | change, {"state": json.dumps(state)})
        with pytest.raises(FileError, match="checkpoint"):
            vae.train(config, tmp_path)
    save_tensors(path, tensors, {"state": json.dumps(state | {"step": 10**6})})
    with pytest.raises(FileError, match="step 1000000 of 24"):
        vae.train(config, tmp_path)


def test_a_run_whose_measures_are_not_those_of_scikit_image_says_so(
    small, tmp_path, monkeypatch, undrawn
):
    monkeypatch.setattr(metrics, "skimage_metrics", lambda x, y: {"mse": 7.0})
    trainer = Trainer(small[0], tmp_path)
    trainer.recorder.record_frame()
    trainer.recorder.measure()
    with pytest.warns(UserWarning, match=r"differs from scikit-image's by \d"):
        trainer.finish(0.0)
    assert trainer.metrics["test"]["skimage_difference"] > 6


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
    few = {"mixed_precision": precision, "adversarial_start": 0.0, "batch_size": 8}
    trainer = Trainer(replace(small[0], **few | options), tmp_path)
    advance(trainer, 5 if precision == "no" else 3)  # bf16 is slow on most CPUs
    for terms in trainer.recent:
        assert all(value.isfinite() for value in terms.values()), terms
    loop.save(trainer)  # which raises unless weights and optimisers are finite
    measured = trainer.recorder.evaluate(10, lpips_images=0)
    assert all(np.isfinite(value) for value in measured["sample"].values())


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_model(
    tiny, tmp_path, monkeypatch
):
    step = Trainer.step_on

    def poisoned(self, x, labels, noise):
        return step(self, x, labels, noise * math.nan if self.steps_done == 11 else noise)

    monkeypatch.setattr(Trainer, "step_on", poisoned)
    with pytest.raises(FloatingPointError, match="mse is nan at step 12"):
        vae.train(tiny(early_evaluations=5), tmp_path)
    model = vae.VAE.from_pretrained(tmp_path)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["history"]["test"][-1]["step"] == 11
    assert "test" not in metrics
