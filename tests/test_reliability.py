"""What docs/reliability.md promises of a training that is cut off."""

import contextlib
import os

import numpy as np
import pytest
import torch
from helpers import SHORT_RUN, interrupt_at, make, small_prior, without_clocks

import vae
from vae.machinery import loop, notebook
from vae.machinery.cli import main
from vae.machinery.folder import CHECKPOINT_NAME, LOCK_NAME, load_checkpoint, lock, read_metrics
from vae.pretrained import TEMPORARY

resource = pytest.importorskip("resource")
pytestmark = [pytest.mark.unix, pytest.mark.usefixtures("undrawn")]


def test_a_run_that_was_interrupted_ends_bit_for_bit_the_same(small, tmp_path, monkeypatch):
    config, alone = small
    steps = (2, 7, 11, 12, 17)  # before, at and after the discriminator's start and an epoch's end
    interrupt_at(monkeypatch, *steps)
    for step in steps:
        run = vae.train(config, tmp_path)
        assert run.metrics["interrupted"] == step
        assert "test" not in run.metrics
        assert (tmp_path / CHECKPOINT_NAME).is_file()
        run.model.sample(1)  # it can be used
        assert f"Stopped at step {step}." in notebook.summarize(run)
        with pytest.raises(ValueError, match="is not finished"):
            notebook.show_results(run)
    run = vae.train(config, tmp_path)
    torch.testing.assert_close(run.model.state_dict(), alone.model.state_dict(), rtol=0, atol=0)
    assert without_clocks(run.metrics["history"]) == without_clocks(alone.metrics["history"])
    assert run.metrics["test"] == alone.metrics["test"]
    assert "interrupted" not in run.metrics
    np.testing.assert_equal(run.frames.arrays(), alone.frames.arrays())
    assert not (tmp_path / CHECKPOINT_NAME).exists()


@pytest.mark.parametrize("what", ["train", "prior", "sharpen"])
def test_a_training_goes_on_with_the_threads_that_it_had(what, tiny, folder, monkeypatch):
    few = {"max_train_images": 64, "epochs": 1, "batch_size": 32}
    blind = few | {"w_perceptual": 0, "lpips_images": 0}
    if what == "sharpen":
        make(latent_grid=1).save_pretrained(folder)
    cut_off = {
        "train": lambda **given: vae.train(tiny(**blind | given), folder / "run"),
        "prior": lambda **given: vae.train_prior(folder, small_prior(**few | given)),
        "sharpen": lambda **given: vae.sharpen(folder, config=vae.SharpenConfig(**blind | given)),
    }[what]

    def take_steps(training):
        used.append(torch.get_num_threads())
        loop.save(training)
        return False

    used, number = [], [2]
    monkeypatch.setattr(loop, "take_steps", take_steps)
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[-1])
    monkeypatch.setattr(torch, "set_num_threads", number.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for given, expected in ({"threads": 1}, 1), ({}, 1), ({"threads": 3}, 3), ({}, 2):
        with contextlib.suppress(KeyboardInterrupt):
            cut_off(**given)
        assert used[-1] == expected, given
        assert number[-1] == 2  # the caller's
        path = next(folder.rglob("*checkpoint.safetensors"))
        assert load_checkpoint(path)[1]["metrics"]["environment"]["threads"] == expected


def test_ctrl_c_ends_the_command_and_resume_is_asked_for(tmp_path, monkeypatch, capsys):
    interrupt_at(monkeypatch, 3)
    run = [*SHORT_RUN, "--beta", "0.5", "--batch-size", "16", "--run-dir", str(tmp_path)]
    assert main(run) == 130
    assert "interrupted" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME)[1]["step"] == 3  # was finished
    assert main(run) == 2
    assert "holds a training that was cut off" in capsys.readouterr().err
    assert main([*run, "--resume", "--seed", "1"]) == 2
    assert "other settings (seed 0 there, 1 here)" in capsys.readouterr().err
    assert main([*run, "--resume"]) == 0
    assert "test" in read_metrics(tmp_path)


def test_a_second_training_in_a_folder_is_refused(small, tmp_path):
    config, _ = small
    with lock(tmp_path), pytest.raises(OSError, match="in use by another training"):
        vae.train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_a_full_disk_leaves_the_last_checkpoint(small, tmp_path, monkeypatch):
    config, _ = small
    interrupt_at(monkeypatch, 5)
    vae.train(config, tmp_path)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # what a full disk does to a large file
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint\.safetensors could not be written"):
            vae.train(config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME)[1]["step"] == 5
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(small, tmp_path, monkeypatch):
    config, _ = small
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OSError, match="cannot be written to"):
        vae.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
