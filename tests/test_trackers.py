"""Curves and reconstructions that are written for TensorBoard, too."""

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
    config = tiny(max_train_images=128, log_with="tensorboard", early_evaluations=1)
    run, plain = (
        vae.train(config, tmp_path / "a"),
        vae.train(tiny(max_train_images=128, early_evaluations=1), tmp_path / "b"),
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(run.model.parameters(), plain.model.parameters(), strict=True)
    )
    read = events(tmp_path / "a")
    for split in ("train", "test"):
        rows = run.metrics["history"][split]
        for name in set().union(*rows) - {"step"}:
            there = [(event.step, event.value) for event in read.Scalars(f"{split}/{name}")]
            kept = [
                (row["step"], pytest.approx(row[name], rel=1e-5)) for row in rows if name in row
            ]
            assert there == kept, name
    shown = read.Images("test/reconstructions")
    assert [picture.step for picture in shown] == [
        row["step"] for row in run.metrics["history"]["test"]
    ]
    assert (shown[0].width, shown[0].height) == (280, 56)
    assert not (tmp_path / "b" / "logs").exists()
    again = vae.train(tiny(max_train_images=128, early_evaluations=1), tmp_path / "a")
    assert again.metrics["test"] == run.metrics["test"]  # where curves go is no setting of a result


def test_a_priors_curves_reach_tensorboard(folder):
    vae.train_prior(folder, small_prior(log_with="tensorboard"))
    tags = events(folder).Tags()["scalars"]
    assert {"train/loss", "test/loss", "train/images_per_second"} <= set(tags)


def test_a_tracker_that_is_not_there_is_refused_before_a_step(tiny, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"log_with='tensorbord' is not allowed: one of .*'tensorboard'"
    ):
        tiny(log_with="tensorbord")
    monkeypatch.setattr(loop, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="log_with='tensorboard' is not allowed: its package is"):
        vae.train(tiny(log_with="tensorboard"), tmp_path / "run")
