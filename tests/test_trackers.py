"""Curves and reconstructions that are written for TensorBoard, too."""

from dataclasses import replace

import pytest
import torch
from helpers import small_prior
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.machinery import loop


def events(folder):
    read = EventAccumulator(str(folder / "logs"), {"images": 0, "scalars": 0})
    return read.Reload()


def test_every_curve_and_the_reconstructions_reach_tensorboard(tiny, tmp_path, undrawn):
    config = tiny(max_train_images=128)
    run = vae.train(replace(config, log_with="tensorboard"), tmp_path / "a")
    plain = vae.train(config, tmp_path / "b")
    torch.testing.assert_close(run.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)
    read = events(tmp_path / "a")
    for split in ("train", "test"):
        rows = run.metrics["history"][split]
        for name in set().union(*rows) - {"step"}:
            there = [(event.step, event.value) for event in read.Scalars(f"{split}/{name}")]
            kept = [(row["step"], row[name]) for row in rows if name in row]
            assert there == [(step, pytest.approx(value, rel=1e-5)) for step, value in kept], name
    shown = read.Images("test/reconstructions")
    steps = [row["step"] for row in run.metrics["history"]["test"]]
    assert [picture.step for picture in shown] == steps
    assert (shown[0].width, shown[0].height) == (280, 56)
    assert not (tmp_path / "b" / "logs").exists()
    again = vae.train(config, tmp_path / "a")
    assert again.metrics["test"] == run.metrics["test"]  # where curves go is no setting of a result


def test_a_priors_curves_reach_tensorboard(folder):
    vae.train_prior(folder, small_prior(log_with="tensorboard"))
    tags = events(folder).Tags()["scalars"]
    assert {"train/loss", "test/loss", "train/images_per_second"} <= set(tags)


def test_a_tracker_that_is_not_there_is_refused_before_a_step(tiny, tmp_path, monkeypatch):
    said = r"log_with='tensorbord' is not allowed: one of .*'tensorboard'"
    with pytest.raises(ValueError, match=said):
        tiny(log_with="tensorbord")
    monkeypatch.setattr(loop, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="log_with='tensorboard' is not allowed: its package is"):
        vae.train(tiny(log_with="tensorboard"), tmp_path / "run")
