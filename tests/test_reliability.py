"""What docs/reliability.md promises: nothing is lost, and no file is trusted."""

import gzip
import io
import json
import os
import pickle
import random
import resource
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import kill_test
import numpy as np
import pytest
import torch

import vae
from vae import data, notebook, training
from vae.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vae.cli import main
from vae.files import FileError, save_tensors
from vae.frames import Frames
from vae.prior import LatentPrior, PriorConfig
from vae.run import read_metrics
from vae.training import LOCK_NAME, Trainer


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The settings of a short training, and that training, left alone."""
    config = vae.TrainConfig(
        model=vae.VAEConfig(channels=(8, 16, 16)), epochs=2, max_train_images=192,
        max_test_images=40, projected_images=40, lpips_images=4, batch_size=16,
        perceptual_share=0.05, early_evaluations=1, mixed_precision="no",
    )  # fmt: skip
    return config, vae.train(config, tmp_path_factory.mktemp("runs") / "alone")


def interrupt_at(monkeypatch, *steps):
    """Send Ctrl-C to this process in the middle of these steps."""
    optimize, left = Trainer.optimize, set(steps)

    def interrupted(self):
        if self.step + 1 in left:
            left.discard(self.step + 1)
            os.kill(os.getpid(), signal.SIGINT)
        optimize(self)

    monkeypatch.setattr(Trainer, "optimize", interrupted)


def without_clocks(history):
    return [
        {name: value for name, value in row.items() if name not in kill_test.TIMED}
        for rows in history.values()
        for row in rows
    ]


def test_a_run_that_was_interrupted_anywhere_ends_bit_for_bit_the_same(
    small, tmp_path, monkeypatch
):
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
    for (name, ours), theirs in zip(
        run.model.state_dict().items(), alone.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert without_clocks(run.metrics["history"]) == without_clocks(alone.metrics["history"])
    assert run.metrics["test"] == alone.metrics["test"]
    assert "interrupted" not in run.metrics
    for name, array in run.frames.arrays().items():
        assert np.array_equal(array, getattr(alone.frames, name)), name
    assert not (tmp_path / CHECKPOINT_NAME).exists()


def test_a_killed_training_goes_on_from_whole_files(tmp_path):
    counts = kill_test.run(kills=2, seed=1, parent=tmp_path)
    assert counts == {"random": 1, "checkpoint": 1}


def test_ctrl_c_ends_the_command_with_code_130_and_resume_is_asked_for(
    tmp_path, monkeypatch, capsys
):
    interrupt_at(monkeypatch, 3)
    flags = "--channels 8 16 16 --epochs 1 --max-train-images 64 --max-test-images 40 --beta 0.5 "
    flags += f"--projected-images 40 --lpips-images 0 --w-perceptual 0 --run-dir {tmp_path}"
    flags += " --batch-size 16"
    assert main(["train", *flags.split()]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME)[1]["step"] == 3  # was finished
    assert main(["train", *flags.split()]) == 2
    assert "holds a training that was cut off" in capsys.readouterr().err
    assert main(["train", *flags.split(), "--resume", "--seed", "1"]) == 2
    assert "other settings (seed 0 there, 1 here)" in capsys.readouterr().err
    assert main(["train", *flags.split(), "--resume"]) == 0
    assert "test" in read_metrics(tmp_path)


def test_checkpoints_come_in_time(small, tmp_path, monkeypatch):
    config, _ = small
    saved = []
    monkeypatch.setattr(Trainer, "save", lambda self: saved.append(self.step))
    monkeypatch.setattr(Trainer, "measure", lambda self: None)
    monkeypatch.setattr(Trainer, "finish", lambda self, started: None)
    vae.train(replace(config, early_evaluations=0), tmp_path / "seldom")
    assert saved == [12, 24]  # at the evaluations
    assert training.CHECKPOINT_SECONDS <= 120
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    saved.clear()
    vae.train(replace(config, epochs=1), tmp_path / "often")
    assert saved == list(range(1, 13))


def test_a_second_training_in_a_folder_is_refused(small, tmp_path):
    config, _ = small
    with training.lock(tmp_path, True), pytest.raises(OSError, match="in use by another training"):
        vae.train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_what_a_kill_left_half_written_is_removed(small, tmp_path):
    for name in (".model.123.safetensors", ".latent.9.gif", ".keep", "notes.1.txt"):
        (tmp_path / name).touch()
    with training.lock(tmp_path, True):
        names = {path.name for path in tmp_path.iterdir()}
    assert names == {".keep", "notes.1.txt", LOCK_NAME}


def test_a_full_disk_stops_the_training_and_leaves_the_last_checkpoint(
    small, tmp_path, monkeypatch
):
    config, _ = small
    interrupt_at(monkeypatch, 5)
    vae.train(config, tmp_path)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # what a full disk does to a large file
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint\.safetensors could not be written"):
            vae.train(config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME)[1]["step"] == 5
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".checkpoint")]


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(small, tmp_path, monkeypatch):
    config, _ = small
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OSError, match="cannot be written to"):
        vae.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_keeps_the_order_of_the_losses(small, tmp_path):
    config, _ = small  # the last bit of a mean over a column depends on where the column stands
    trainer, other = Trainer(config, tmp_path), Trainer(config, tmp_path)
    trainer.optimize()
    trainer.save()
    other.restore()
    assert list(other.recent[0].items()) == list(trainer.recent[0].items())


def test_weights_that_are_not_finite_are_not_saved(small, tmp_path):
    config, _ = small
    trainer = Trainer(config, tmp_path)
    trainer.optimize()
    trainer.save()
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with torch.no_grad():
        trainer.model.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"model\.decoder\.conv_out\.bias is not finite"):
        trainer.save()
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


class Bomb:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def hostile_npz(shape):
    """A small archive whose arrays claim to be huge."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("labels", "originals", "epochs", "points", "reconstructions"):
            archive.writestr(f"{name}.npy", header.getvalue() + b"\0" * 4096)
    return buffer.getvalue()


def bomb_npz():
    """A megabyte that expands to more than a gigabyte."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("labels.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (1100 * 2**17,)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(1100):
            file.write(bytes(2**20))
    return buffer.getvalue()


def hostile_safetensors(tmp_path):
    """Whole files, with matching checksums, of the wrong content."""
    path = tmp_path / "crafted.safetensors"
    for tensors, metadata in (
        ({}, {}),
        ({"a": torch.zeros(3)}, {"state": "[]"}),
        ({"a": torch.zeros(3)}, {"state": "[" * 100_000}),
        ({"a": torch.zeros(3)}, {"state": '{"step": -1, "training_seconds": 0, "metrics": {}}'}),
        ({"a": torch.full((3,), float("nan"))}, {"state": "{}"}),
    ):
        save_tensors(path, tensors, metadata)
        yield path.read_bytes()


def variants(whole, others, count, chance):
    """Truncated, bit-flipped, spliced and swapped versions of a file."""
    yield from (b"", b"\0" * 4096, *others)
    for number in range(count):
        changed = bytearray(whole)
        kind = number % 4
        if kind == 0:
            del changed[chance.randrange(len(whole)) :]
        elif kind == 1:
            for _ in range(chance.choice((1, 1, 8))):
                changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        elif kind == 2:
            start = chance.randrange(len(whole))
            changed[start : start + 64] = chance.randbytes(64)
        else:  # where headers are
            changed[chance.randrange(min(400, len(whole)))] = chance.randrange(256)
        yield bytes(changed)


def a_gigabyte_more(request):
    """Until the test's end, let this process have at most 1 GiB more of memory than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))


def test_2000_damaged_and_hostile_files_are_refused_by_name_or_read_right(
    small, tmp_path, monkeypatch, request
):
    config, _ = small
    source, target = tmp_path / "whole", tmp_path / "damaged"
    monkeypatch.chdir(tmp_path)
    interrupt_at(monkeypatch, 7)
    vae.train(config, source)
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    bomb = pickle.dumps(Bomb())
    torch_bomb = io.BytesIO()
    torch.save({"model": Bomb()}, torch_bomb)
    crafted = list(hostile_safetensors(tmp_path))
    deep, pickled = b"[" * 200_000, npz(labels=np.array([Bomb()], dtype=object))
    huge_model = json.dumps({"channels": [1024, 1024, 1024], "blocks": 8, "latent_size": 64})
    archives = [hostile_npz((10**6, 10**6)), hostile_npz((-1, 3)), pickled, bomb_npz()]
    LatentPrior(PriorConfig(channels=8, blocks=1)).save_pretrained(source)
    LatentPrior(PriorConfig(channels=8, blocks=1)).save_pretrained(target)
    huge_prior = json.dumps({"channels": 1024, "blocks": 16}).encode()
    readers = {
        "prior.safetensors": (LatentPrior.from_pretrained, target, crafted),
        "prior.json": (LatentPrior.from_pretrained, target, [deep, huge_prior, b"[1]"]),
        "model.safetensors": (vae.VAE.from_pretrained, target, crafted),
        "config.json": (vae.VAE.from_pretrained, target, [deep, huge_model.encode(), b"[1]"]),
        "metrics.json": (read_metrics, target, [deep, b'{"history": 1}', b"1" * 10_000]),
        "frames.npz": (Frames.load, target / "frames.npz", archives),
        CHECKPOINT_NAME: (load_checkpoint, target / CHECKPOINT_NAME, crafted),
    }
    chance, tried, refused = random.Random(0), 0, 0
    a_gigabyte_more(request)
    for name, (read, argument, others) in readers.items():
        path = target / name
        whole = path.read_bytes()
        read(argument)
        swapped = [(source / other).read_bytes() for other in readers if other != name]
        extra = [bomb, torch_bomb.getvalue(), *others, *swapped]
        for variant in variants(whole, extra, 400, chance):
            path.write_bytes(variant)
            tried += 1
            try:
                read(argument)
            except FileError as error:
                refused += str(target) in str(error)
        path.write_bytes(whole)
    assert tried > 2000
    assert refused > 0.8 * tried, (refused, tried)  # most of the rest are spaces and digits in JSON
    assert not (tmp_path / "exploded").exists()


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


def test_an_archive_that_would_expand_without_end_is_refused(tmp_path, monkeypatch, request):
    name = "t10k-labels-idx1-ubyte.gz"
    with gzip.open(tmp_path / name, "wb", compresslevel=9) as file:
        for _ in range(1100):
            file.write(b"\0" * 2**20)
    monkeypatch.setattr(data, "MNIST_FOLDER", tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes((tmp_path / name).read_bytes())
    a_gigabyte_more(request)
    with pytest.raises(FileError, match="not the published file"):
        vae.load_digits("test")


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
    for terms in trainer.recent:
        assert all(value.isfinite() for value in terms.values()), terms
    trainer.save()  # which raises unless weights and optimisers are finite
    measured = trainer.evaluate(lpips_images=0)
    assert all(np.isfinite(value) for value in measured["sample"].values())


def test_constant_images_have_defined_metrics():
    black, grey, white = (torch.full((1, 1, 28, 28), level) for level in (-1.0, 0.0, 1.0))
    for image in (black, grey, white):
        assert vae.ssim(image, image).item() == pytest.approx(1)
        assert vae.psnr(image, image).item() == float("inf")
    assert vae.psnr(black, white).item() == pytest.approx(0)
    assert -1 <= vae.ssim(black, white).item() < 0
