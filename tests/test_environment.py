"""Where trainings run: other threads, files, file systems, environments, and what stands there."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers import interrupt_at, make, small_prior, without_clocks

import vae
from vae.machinery import animations, figures, loop
from vae.machinery import folder as folders
from vae.machinery.cli import main
from vae.machinery.folder import CHECKPOINT_NAME, FILES, LOCK_NAME, PICTURES
from vae.machinery.folder import load_checkpoint, lock, read_metrics
from vae.machinery.machine import isolated
from vae.machinery.run import Run, render
from vae.machinery.trainings import Trainer
from vae.pretrained import TEMPORARY, write_atomically

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.unix

T = "--budget tiny --channels 8 16 16 --lpips-images 0 --w-perceptual 0 --early-evaluations 0 "
T += "--max-train-images 64 --max-test-images 20 --projected-images 20 --dataset fashion_mnist"


def data_set(root: Path, labels: list[int], count: int = 128) -> None:
    """IDX files of real digits with other labels, named as torchvision's FashionMNIST."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = vae.load_digits("test").images[:count]
    repeated = bytes((labels * count)[:count])
    for split in ("train", "t10k"):
        header = struct.pack(">4I", 0x803, count, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">2I", 0x801, count)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + repeated)


def refuse(*args, **kwargs):
    raise RuntimeError("a picture fails")


def same(ours: vae.VAE, theirs: vae.VAE) -> bool:
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# What is loaded owns its memory.


def test_a_loaded_thing_does_not_change_with_its_file(small, tmp_path):
    config, alone = small
    shutil.copytree(alone.directory, tmp_path / "run")
    make(latent_size=3).save_pretrained(tmp_path / "vae")
    vae.LatentPrior(vae.PriorConfig(3, channels=16)).save_pretrained(tmp_path / "prior")
    vae.Judge.from_pretrained().save_pretrained(tmp_path / "judge")
    trainer = Trainer(config, tmp_path / "cut")
    (tmp_path / "cut").mkdir()
    loop.save(trainer)
    run = Run.load(tmp_path / "run")
    loaded = [
        run.model.state_dict(),
        vae.VAE.from_pretrained(tmp_path / "vae").state_dict(),
        vae.LatentPrior.from_pretrained(tmp_path / "prior").state_dict(),
        vae.Judge.from_pretrained(tmp_path / "judge").state_dict(),
        load_checkpoint(tmp_path / "cut" / CHECKPOINT_NAME)[0],
        {name: torch.from_numpy(array) for name, array in run.frames.arrays().items()},
    ]
    before = [{name: tensor.clone() for name, tensor in one.items()} for one in loaded]
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".npz")]
    assert len(files) == 6
    for path in files:
        with open(path, "r+b") as file:  # in place, as a copy over it does
            file.write(bytes(path.stat().st_size))
    for ours, theirs in zip(loaded, before, strict=True):
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name
    for path in files:
        path.write_bytes(b"")  # reading a window on it would end the process
    run.model.sample(1)


# Data that moved; classes that are not ten.


def test_where_the_data_lies_is_no_setting_of_the_result(tmp_path, monkeypatch, capsys):
    data_set(tmp_path / "here", list(range(10)))
    run = ["train", *T.split(), "--run-dir", str(tmp_path / "run")]
    monkeypatch.chdir(tmp_path)
    interrupt_at(monkeypatch, 1)
    assert main([*run, "--data-root", "here"]) == 130
    (tmp_path / "here").rename(tmp_path / "there")
    data_set(tmp_path / "others", list(range(9, -1, -1)))
    assert main([*run, "--resume", "--data-root", "others"]) == 2
    assert "saw other data than there is now (data_root)" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main([*run, "--resume", "--data-root", "../there"]) == 0
    monkeypatch.chdir(tmp_path)  # from where the data is elsewhere again
    assert main(["evaluate", "run"]) == 2
    assert "--data-root" in capsys.readouterr().err
    assert read_metrics(tmp_path / "run")["config"]["data_root"] == "../there"
    assert main(["evaluate", "run", "--data-root", "there"]) == 0
    said = capsys.readouterr().out
    what = "Largest difference from metrics.json in MSE, SSIM, PSNR, KL: "
    assert float(said.partition(what)[2]) < 1e-12
    prior = ["train-prior", "run", "--budget", "tiny", "--channels", "16", "--blocks", "1"]
    assert main([*prior, "--batch-size", "32"]) == 2
    assert main([*prior, "--batch-size", "32", "--data-root", "others"]) == 2
    assert "there is other data than the VAE was trained on" in capsys.readouterr().err
    assert main([*prior, "--batch-size", "32", "--data-root", "there"]) == 0
    assert main([*prior, "--batch-size", "32"]) == 0  # finished: reads no data
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*run[:-1], "~/run", "--data-root", "~/there"]) == 0
    assert "holds a finished run" in capsys.readouterr().out
    assert len(vae.load_digits("test", "fashion_mnist", "~/there").images) == 128


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 11), ([1, 2, 3, 4], 4), ([3, 5], 6), ([3, 5], 2),
     ([0, 1], 10), ([7], 1), (list(range(0, 250, 5)), 50)],
)  # fmt: skip
def test_any_number_of_classes_is_drawn_right_or_refused_before_training(
    labels, classes, tmp_path, monkeypatch
):
    data_set(tmp_path, labels)
    config = vae.TrainConfig(
        vae.VAEConfig(2, 1, channels=(8, 16, 16)), dataset="fashion_mnist", lpips_images=0,
        data_root=tmp_path, epochs=1, max_train_images=32, max_test_images=100, w_perceptual=0,
        projected_images=100, early_evaluations=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run = vae.train(config, tmp_path / "run")
    assert "test" in run.metrics
    names = {path.name for path in run.directory.iterdir()}
    assert {"latent.gif", "reconstruction.gif", "interpolation.gif", "samples.png"} <= names
    there = sorted(set(labels))
    assert len(run.frames.classes) == 10
    assert sorted(set(run.frames.classes.tolist())) == there[:10]
    assert set(run.frames.labels.tolist()) == set(there)
    page = animations.latent_frames(run.frames, "", 2)[0]
    shown = [text.get_text() for axes in page.axes for text in axes.texts]
    named = there if len(there) > 1 else []  # a single class is not named
    assert shown == [str(label) for label in named[:30]]
    digits = vae.load_digits("test", "fashion_mnist", tmp_path)
    assert len(figures.plot_examples(digits, "").axes[0].get_yticks()) == min(30, len(named))

    conditional = replace(config, model=replace(config.model, num_classes=classes))
    monkeypatch.setattr(loop, "train", refuse)
    with pytest.raises(ValueError, match=rf"num_classes={classes} is not allowed.*fashion_mnist"):
        vae.train(conditional, tmp_path / "conditional")
    assert not (tmp_path / "conditional").exists()


def test_a_class_that_only_comes_after_the_first_images_is_not_overlooked(tmp_path, capsys):
    data_set(tmp_path / "data", sorted(range(10)), 10)
    flags = [*T.split(), "--num-classes", "10", "--data-root", str(tmp_path / "data")]
    flags += ["--max-train-images", "8", "--batch-size", "8", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *flags]) == 2
    said = "the 8 train images of dataset='fashion_mnist' have 8 classes, 0, 1, 2, 3, 4, 5, 6, 7"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("classes", [2, 26])
def test_a_conditional_run_of_other_classes_is_drawn_and_has_a_prior(classes, tmp_path):
    data_set(tmp_path, list(range(classes)), 10 * classes + 60)
    model = vae.VAEConfig(2, channels=(8, 16, 16), num_classes=classes)
    config = vae.TrainConfig(
        model, dataset="fashion_mnist", data_root=str(tmp_path), epochs=1, max_train_images=64,
        max_test_images=52, w_perceptual=0, lpips_images=0, early_evaluations=0, batch_size=16,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run = vae.train(config, tmp_path / "run")
        options = {"epochs": 1, "max_train_images": 64, "batch_size": 32}
        wrong = classes + 1
        of = vae.PriorConfig(channels=16, blocks=1, steps=1, num_classes=wrong)
        with pytest.raises(ValueError, match=rf"num_classes={wrong} .*{classes} classes"):
            vae.train_prior(run.directory, vae.PriorTrainConfig(of, **options))
        of = replace(of, num_classes=10)  # the default, which is those of the data
        prior = vae.train_prior(run.directory, vae.PriorTrainConfig(of, **options))
        assert run.model.sample(3, [classes - 1, 0, 1], None, prior).shape == (3, 1, 28, 28)
        assert len(figures.plot_digits(run.model, "").axes[0].images[0].get_array()) == 30 * classes
        assert figures.plot_samples(run.model, "", prior=prior).axes
        assert {path.name for path in render(run)} == {
            "digits.png", "samples.png", "latent.gif", "reconstruction.gif", "interpolation.gif",
            "train_metrics.png", "test_metrics.png", "prior_samples.png",
        }  # fmt: skip
    assert {path.name for path in run.directory.iterdir()} - {LOCK_NAME} <= set(FILES)


# Foreign files; file systems that can do less.


def test_only_what_this_package_writes_is_removed_or_replaced(tiny, tmp_path, monkeypatch):
    mine = [".config.20240101.json", ".model.123.safetensors", ".keep", "notes.1.txt",
            f"{TEMPORARY}notes.txt", f"{TEMPORARY}1-2-notes.txt", "weights.npz"]  # fmt: skip
    ours = [f"{TEMPORARY}12-345-{name}" for name in FILES]
    for name in mine + ours:
        (tmp_path / name).write_text("mine")
    with lock(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*mine, LOCK_NAME}
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(loop, "train", refuse)
    for name in ("config.json", "model.safetensors", "samples.png", "frames.npz", "metrics.json"):
        tmp_path.mkdir()
        for mine in (name, LOCK_NAME):  # many programs have such a lock
            (tmp_path / mine).write_text("mine")
        with pytest.raises(ValueError, match=name):
            vae.train(tiny(), tmp_path)
        assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["mine", "mine"]
        shutil.rmtree(tmp_path)
    tmp_path.mkdir()


def test_somebodys_prior_in_a_runs_folder_is_not_replaced(folder):
    mine = vae.LatentPrior(vae.PriorConfig(3, channels=16))
    mine.save_pretrained(folder)
    before = (folder / "prior.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"it has prior\.json, prior\.safetensors, which no train"):
        vae.train_prior(folder, small_prior())
    assert (folder / "prior.safetensors").read_bytes() == before


def test_all_that_a_training_writes_is_on_the_list(small):
    _, alone = small
    names = {path.name for path in alone.directory.iterdir()}
    assert names - {LOCK_NAME} <= set(FILES)
    assert {path.name for path in render(alone)} <= set(PICTURES)


def unsupported(number: int):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def test_what_a_file_system_cannot_do_is_done_without(small, tmp_path, monkeypatch):
    config, alone = small
    monkeypatch.setattr(os, "chmod", unsupported(errno.EPERM))
    monkeypatch.setattr(Path, "chmod", unsupported(errno.EPERM))
    monkeypatch.setattr(os, "fsync", unsupported(errno.ENOSYS))
    monkeypatch.setattr(shutil, "disk_usage", unsupported(errno.ENOSYS))
    monkeypatch.setattr(fcntl, "flock", unsupported(errno.ENOSYS))
    monkeypatch.setattr(os, "unlink", unsupported(errno.EPERM))
    (tmp_path / LOCK_NAME).touch()  # left by a training, where there were locks
    with pytest.warns(UserWarning, match="has no locks: start one training at a time there"):
        run = vae.train(config, tmp_path)
    assert same(run.model, alone.model)
    assert len(list(tmp_path.glob("*.gif"))) == 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    folders.check_directory(tmp_path)


def test_an_error_names_the_users_file_and_never_a_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", unsupported(number))
            with pytest.raises(OSError, match=r"metrics\.json could not be written") as error:
                write_atomically(path, b"new")
        assert os.strerror(number) in str(error.value)
        assert TEMPORARY not in str(error.value)
    with pytest.raises(OSError, match=r"metrics\.json could not be written: No such") as error:
        write_atomically(tmp_path / "no" / "metrics.json", b"new")
    assert TEMPORARY not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert path.read_text("utf-8") == "old"
    with pytest.raises(ValueError, match=r"metrics\.json is a file, a folder is expected"):
        folders.check_directory(path / "run")


def test_a_finished_run_where_nothing_can_be_written_is_only_read(small, folder, monkeypatch):
    config, alone = small
    vae.train_prior(folder, small_prior(epochs=1))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    for name in ("mkdir", "replace", "unlink", "open"):
        monkeypatch.setattr(os, name, unsupported(errno.EROFS))
    assert same(vae.train(config, alone.directory).model, alone.model)
    vae.train_prior(folder, small_prior(epochs=1))
    monkeypatch.undo()


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" &&
"$2" -c 'import sys; from vae.machinery.cli import main
flags = sys.argv[3:]
assert main(["train", *flags, "--run-dir", sys.argv[1]]) == 0
assert main(["evaluate", sys.argv[1], "--lpips-images", "0"]) == 0
assert main(["render", sys.argv[1]]) == 2
assert main(["train", *flags, "--run-dir", sys.argv[1] + "/new"]) == 2' "$@"
"""


def test_a_finished_run_on_a_read_only_disk(small, tmp_path):
    _, alone = small
    probe = ["unshare", "-m", "mount", "--bind", tmp_path, tmp_path]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    shutil.copytree(alone.directory, tmp_path / "run")
    flags = "--channels 8 16 16 --epochs 2 --max-train-images 192 --max-test-images 40 "
    flags += "--projected-images 40 --lpips-images 4 --batch-size 16 --perceptual-share 0.05 "
    flags += "--early-evaluations 1 --frames 3 --mixed-precision no"
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", tmp_path / "run", sys.executable]
    done = subprocess.run([*command, *flags.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written to") == 2, done.stderr
    assert "holds a finished run" in done.stdout


def test_a_folder_that_takes_no_checkpoint_is_found_before_the_first_step(
    small, tmp_path, monkeypatch
):
    config, _ = small
    monkeypatch.setattr(loop, "take_steps", refuse)
    monkeypatch.setattr(os, "replace", unsupported(errno.EACCES))
    with pytest.raises(OSError, match=r"checkpoint\.safetensors could not be written: Permission"):
        vae.train(config, tmp_path)


# The caller's state, and other threads.


def test_a_training_depends_on_its_arguments_alone_and_changes_nothing_else(small, tmp_path):
    config, alone = small
    torch.manual_seed(5)

    def state():
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return (
            torch.get_default_dtype(),
            *modes,
            dict(matplotlib.rcParams),
            torch.get_rng_state().tolist(),
        )

    try:
        torch.set_default_dtype(torch.float64)
        half = torch.autocast("cpu", torch.bfloat16)
        modes = torch.no_grad(), torch.inference_mode(), half, torch.device("meta")
        for number, mode in enumerate(modes):
            with mode:
                before = state()
                run = vae.train(config, tmp_path / str(number))
                assert state() == before
            assert same(run.model, alone.model)
            assert run.metrics["test"] == alone.metrics["test"]
            histories = (without_clocks(one.metrics["history"]) for one in (run, alone))
            assert next(histories) == next(histories)
    finally:
        torch.set_default_dtype(torch.float32)


def test_in_half_precision_every_step_sees_its_own_weights(begin, tmp_path):
    """Autocast keeps copies of weights until the outermost of its contexts is left."""

    def losses():
        training = begin(mixed_precision="bf16")
        for _ in range(4):
            training.take_step()
        return [{k: float(v) for k, v in terms.items()} for terms in training.log.recent]

    alone = losses()
    with isolated(1, tmp_path):
        assert losses() == alone
    with torch.autocast("cpu", torch.bfloat16), isolated(1, tmp_path):
        assert losses() == alone


def test_trainings_in_two_threads_are_those_of_a_lone_one(small, tmp_path):
    config, alone = small
    runs = {}
    start = threading.Barrier(3)

    def train(name: str, precision: str) -> None:
        start.wait()
        here = replace(config, mixed_precision=precision)
        runs[name] = vae.train(here, tmp_path / name)

    def draw() -> None:  # a caller's own thread, which seeds, draws, and must not be disturbed
        while len(runs) < 3:
            torch.manual_seed(3)
            drawn.add(tuple(torch.randn(4).tolist()))

    cases, drawn = [("a", "no"), ("b", "no"), ("c", "bf16")], set()
    threads = [threading.Thread(target=train, args=case) for case in cases]
    threads.append(threading.Thread(target=draw))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 1
    assert same(runs["a"].model, alone.model)
    assert same(runs["b"].model, alone.model)
    assert runs["a"].metrics["test"] == alone.metrics["test"]
    assert not same(runs["c"].model, alone.model)
    precisions = {n: run.metrics["environment"]["mixed_precision"] for n, run in runs.items()}
    assert precisions == dict(cases)


# Cut off very early.


def test_before_the_first_evaluation_every_command_says_what_goes_on(
    tiny, tmp_path, monkeypatch, capsys, folder
):
    interrupt_at(monkeypatch, 1)
    run = vae.train(tiny({"latent_size": 3}), tmp_path / "run")
    assert run.metrics["interrupted"] == 1
    for name in ("config.json", "model.safetensors", "metrics.json"):  # as they are written
        said = f"only a checkpoint is there, and no {name} yet, since the training was cut off: "
        for command in ("render", "evaluate", "train-prior"):
            assert main([command, str(tmp_path / "run")]) == 2
            heard = capsys.readouterr().err
            cut = (name, command) == ("metrics.json", "train-prior")
            assert ("finish it first (--resume)" if cut else f"{said}--resume goes on") in heard
        if name == "config.json":
            run.model.save_pretrained(tmp_path / "saved")
        if name != "metrics.json":
            shutil.copy(tmp_path / "saved" / name, tmp_path / "run")
    with pytest.raises(vae.FileError, match="cut off before its first evaluation"):
        render(run)
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        vae.train_prior(folder, small_prior())
    with pytest.raises(vae.FileError, match=r"no prior\.json yet, since .* --resume"):
        vae.LatentPrior.from_pretrained(folder)


# The environment speaks too.


def test_a_home_folder_is_found(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = make(latent_size=3)
    model.save_pretrained("~/saved")
    assert same(vae.VAE.from_pretrained("~/saved"), model)
    monkeypatch.setattr(loop, "take_steps", lambda training: False)
    assert vae.train(tiny(), "~/run").directory == tmp_path / "run"
    for nobody in ("~no such user/x", "a\0b"):
        with pytest.raises(ValueError, match="is not allowed: a path"):
            vae.train(tiny(), nobody)
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "run"}


def test_a_reader_that_goes_away_is_no_error(small, tmp_path):
    _, alone = small
    shutil.copytree(alone.directory, tmp_path / "run")
    command = [sys.executable, "-m", "vae", "render", tmp_path / "run"]
    read, write = os.pipe()
    os.close(read)  # nobody reads from the start
    with os.fdopen(write, "wb") as broken:
        done = subprocess.run(command, stdout=broken, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Gone:
    """A stderr of which nobody reads any more."""

    def __init__(self, error: Exception):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        pass


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("closed"), None])
def test_work_goes_on_when_nobody_reads_its_progress(error, one_by_one, tmp_path, monkeypatch):
    config, alone = one_by_one["manifold"]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Gone(error) if error else None)
        run = vae.train(config, tmp_path)
        vae.evaluate(run.model, vae.load_digits("test").images[:5], lpips_images=0, progress=True)
        assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "test" in run.metrics
    assert same(run.model, alone.model)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_command_whose_output_is_closed_does_its_work(closed, one_by_one, tmp_path):
    _, alone = one_by_one["manifold"]
    shutil.copytree(alone.directory, tmp_path / "run")
    (tmp_path / "run" / "latent.gif").unlink()
    code = f"'{sys.executable}' -m vae render '{tmp_path}/run' {closed}"
    assert subprocess.run(["sh", "-c", code]).returncode == 0
    assert (tmp_path / "run" / "latent.gif").is_file()


def test_pictures_do_not_depend_on_the_users_matplotlibrc(small, tmp_path):
    _, alone = small
    run = Run(tmp_path, alone.model, alone.metrics, alone.frames)
    plain = {path.name: path.read_bytes() for path in render(run)}
    theirs = {"text.usetex": True, "font.family": "no such font", "axes.facecolor": "red",
              "savefig.dpi": 20, "savefig.bbox": "tight", "font.size": 30}  # fmt: skip
    with matplotlib.rc_context(theirs), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = {path.name: path.read_bytes() for path in render(run)}
        assert matplotlib.rcParams["font.size"] == 30
        assert matplotlib.rcParams["text.usetex"]
    assert again.keys() == plain.keys()
    for name, content in plain.items():
        assert again[name] == content, name


# A finished training is never lost to a picture.

DRAW = {
    "reconstruction_frames": ("reconstruction.gif",), "latent_frames": ("latent.gif",),
    "interpolation_frames": ("interpolation.gif",), "plot_samples": ("samples.png",),
    "plot_curves": ("train_metrics.png", "test_metrics.png"), "plot_digits": ("digits.png",),
    "plot_manifold": ("manifold.png",),
    "save_gif": ("reconstruction.gif", "latent.gif", "interpolation.gif"),
    "save_png": ("samples.png", "train_metrics.png", "test_metrics.png", "manifold.png"),
}  # fmt: skip


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """Runs that a step finishes: of two values, and conditional."""
    made = {}
    for name, classes in (("manifold", 0), ("digits", 10)):
        model = vae.VAEConfig(2, 1, channels=(8, 16, 16), num_classes=classes)
        config = vae.TrainConfig(
            model, epochs=1, max_train_images=32, max_test_images=20, projected_images=20,
            w_perceptual=0, lpips_images=0, early_evaluations=0, mixed_precision="no",
        )  # fmt: skip
        made[name] = config, vae.train(config, tmp_path_factory.mktemp(name))
    return made


@pytest.mark.parametrize("name", DRAW)
def test_a_training_whose_picture_fails_is_finished_and_the_rest_is_drawn(
    name, one_by_one, tmp_path, monkeypatch
):
    config, alone = one_by_one["digits" if name == "plot_digits" else "manifold"]
    everything = {path.name for path in alone.directory.iterdir()} & set(PICTURES)
    with monkeypatch.context() as patched:
        module = animations if name.endswith(("_frames", "_gif")) else figures
        patched.setattr(module, name, refuse)
        with pytest.warns(UserWarning, match=r"was not drawn \(RuntimeError: a picture fails\)"):
            run = vae.train(config, tmp_path)
        assert "test" in run.metrics
        assert not (tmp_path / CHECKPOINT_NAME).exists()
        drawn = {path.name for path in tmp_path.iterdir()} & set(PICTURES)
        assert drawn == everything - set(DRAW[name])
        for path in drawn:
            (tmp_path / path).unlink()
        with pytest.warns(UserWarning, match="python -m vae render"):
            assert {path.name for path in render(Run.load(tmp_path))} == drawn
    assert {path.name for path in render(Run.load(tmp_path))} == everything


def test_a_prior_whose_picture_fails_is_finished(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(figures, "plot_digits", refuse)
        with pytest.warns(UserWarning, match=r"prior_samples\.png was not drawn"):
            vae.train_prior(folder, small_prior(epochs=1))
    assert (folder / "prior_metrics.json").is_file()
    assert not (folder / "prior_checkpoint.safetensors").exists()
    assert not (folder / "prior_samples.png").exists()
    vae.LatentPrior.from_pretrained(folder)


def test_a_finished_run_of_equal_settings_is_the_same_run(one_by_one, monkeypatch):
    config, alone = one_by_one["manifold"]
    monkeypatch.setattr(loop, "train", refuse)
    model = replace(config.model, latent_size=np.int64(2), channels=[8, 16, 16])
    for equal in ({"beta": 1}, {"beta": np.float64(1)}, {"data_root": Path("x")}, {"model": model}):
        run = vae.train(replace(config, **equal), alone.directory)
        assert run.metrics["test"] == alone.metrics["test"]
    with pytest.raises(ValueError, match=r"other settings \(beta 1\.0 there, 2\.0 here\)"):
        vae.train(replace(config, beta=2), alone.directory)


def test_a_run_that_was_killed_while_it_was_drawn_is_whole_and_goes_on(
    one_by_one, tmp_path, monkeypatch
):
    config, alone = one_by_one["manifold"]

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(animations, "save_gif", killed)
        with pytest.raises(KeyboardInterrupt):
            vae.train(config, tmp_path)
    assert Run.load(tmp_path).metrics["test"] == alone.metrics["test"]
    assert same(vae.train(config, tmp_path).model, alone.model)
    assert (tmp_path / "latent.gif").is_file()
