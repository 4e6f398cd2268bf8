"""Where trainings run: other threads, files, file systems, environments, and what stands there."""

import copy
import errno
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import helpers
import matplotlib
import numpy as np
import pytest
import torch
from common import ROOT
from helpers import SHORT_RUN, failing, interrupt_at, make, same, small_prior, without_clocks
from PIL import Image
from safetensors.torch import load, save_file

import vae
from vae import pretrained
from vae.machinery import animations, figures, loop
from vae.machinery import folder as folders
from vae.machinery.cli import main
from vae.machinery.folder import CHECKPOINT_NAME
from vae.machinery.machine import isolated
from vae.machinery.run import Run, render
from vae.machinery.trainings import Trainer
from vae.pretrained import TEMPORARY, write_atomically

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.unix

SHORT = {"epochs": 1, "max_train_images": 32, "max_test_images": 60, "projected_images": 60,
         "frames": 3, "w_perceptual": 0, "lpips_images": 0, "early_evaluations": 0}  # fmt: skip


def data_set(root: Path, labels: list[int], count: int = 128) -> None:
    """FashionMNIST's files, of real digits with other labels."""
    images = vae.load_digits("test").images[:count]
    helpers.write_idx(root / "FashionMNIST" / "raw", images, (labels * count)[:count])


def config_of(classes: int = 0, grid: int | None = 1, **options) -> vae.TrainConfig:
    """The settings of a short training of a model with two latent values, or a map of them."""
    model = vae.VAEConfig(2, grid, channels=(8, 16, 16), num_classes=classes)
    return vae.TrainConfig(model, **(SHORT | options))


def unsupported(number: int):
    return failing(OSError(number, os.strerror(number)))


refuse = failing(RuntimeError("a picture fails"))


def of_mse(rows: list[dict]) -> list[dict]:
    """The rows of a history with one curve, which is drawn sooner than nine."""
    return [{name: row[name] for name in ("epoch", "step", "mse")} for row in rows]


def in_folder(directory: Path) -> set[str]:
    """The names of the files there, without the lock's."""
    return {path.name for path in directory.iterdir()} - {folders.LOCK_NAME}


def test_a_loaded_thing_does_not_change_with_its_file(small, tmp_path):
    config, alone = small
    shutil.copytree(alone.directory, tmp_path, dirs_exist_ok=True)
    loop.save(Trainer(config, tmp_path))
    run, (checkpoint, _) = Run.load(tmp_path), folders.load_checkpoint(tmp_path / CHECKPOINT_NAME)
    loaded = [run.model.state_dict(), checkpoint, run.frames.arrays()]
    before = copy.deepcopy(loaded)
    files = [path for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".npz")]
    assert len(files) == 3
    for path in files:
        with open(path, "r+b") as file:  # in place, as a copy over it does
            file.write(bytes(path.stat().st_size))
    torch.testing.assert_close(loaded, before, rtol=0, atol=0)


def test_where_the_data_lies_is_no_setting_of_the_result(tmp_path, monkeypatch, capsys, undrawn):
    data_set(tmp_path / "here", list(range(10)))
    run = [*SHORT_RUN, "--dataset", "fashion_mnist", "--run-dir", "~/run"]
    monkeypatch.setenv("HOME", str(tmp_path))
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
    assert folders.read_metrics(tmp_path / "run")["config"]["data_root"] == "../there"
    assert main(["evaluate", "run", "--data-root", "there"]) == 0
    printed = capsys.readouterr().out
    assert "20 test images, 98 latent values each" in printed
    assert float(printed.rpartition("in MSE, SSIM, PSNR, KL: ")[2]) < 1e-12
    prior = ["train-prior", "run", "--budget", "tiny", "--channels", "16", "--batch-size", "32"]
    assert main(prior) == 2
    assert main([*prior, "--data-root", "others"]) == 2
    assert "saw other data than there is now (data_root)" in capsys.readouterr().err
    assert main([*prior, "--data-root", "there"]) == 0
    for finished, said in ((prior, "prior"), (run, "holds a finished run")):  # to the data, too
        assert main([*finished, "--data-root", "~/there"]) == 0
        assert said in capsys.readouterr().out
        assert main([*finished, "--data-root", "others"]) == 2
        assert "saw other data than there is now (data_root)" in capsys.readouterr().err
    assert main(["evaluate", "run", "--data-root", "others"]) == 0
    said = capsys.readouterr()
    assert "run: the data are others than it was trained on" in said.err
    assert "Largest difference" not in said.out


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_finished_run_of_other_pictures_is_refused(form, tmp_path, undrawn):
    images = vae.load_digits("test").images[:60, 0].numpy()

    def write(place: str, images: np.ndarray) -> str:
        """Pictures whose names, dates and number are always the same."""
        path = tmp_path / place / "images"
        path.mkdir(parents=True, exist_ok=True)
        if form == "file":
            np.savez(path / "images.npz", images=images)
            return f"file:{path}/images.npz"
        for number, image in enumerate(images):
            Image.fromarray(image).save(path / f"{number}.bmp")
            os.utime(path / f"{number}.bmp", (0, 0))
        return f"folder:{path}"

    a, b = write("a", images), write("b", images[::-1])
    config = config_of(dataset=a, batch_size=16)
    run = vae.train(config, tmp_path / "run")
    assert vae.train(config, tmp_path / "run").metrics["history"] == run.metrics["history"]
    few = vae.SharpenConfig(epochs=1, batch_size=16, w_perceptual=0, lpips_images=0, frames=2)
    vae.sharpen(run.directory, config=few)
    with pytest.raises(ValueError, match=r"run, finished, saw other data .*name another folder"):
        vae.train(replace(config, dataset=b), tmp_path / "run")
    write("a", 255 - images)  # the pictures are replaced
    with pytest.raises(ValueError, match="saw other data than there is now"):
        vae.train(config, tmp_path / "run")
    with pytest.raises(ValueError, match="saw other data than there is now"):
        vae.sharpen(run.directory, config=few)


def spoil_weights(model):
    next(model.parameters()).data[0] = np.nan


def reparametrise(model):
    torch.nn.utils.parametrizations.weight_norm(next(
        part for part in model.modules() if isinstance(part, torch.nn.Conv2d)))  # fmt: skip


def widen(model):
    wider = (8, 16, 24) if isinstance(model, vae.VAE) else 24
    model.config = replace(model.config, channels=wider)


def cut_to_integers(model):
    for parameter in model.requires_grad_(False).parameters():
        parameter.data = parameter.data.long()


@pytest.mark.parametrize("make_one", [make, lambda: vae.LatentPrior(small_prior().model)])
@pytest.mark.parametrize("spoil", [spoil_weights, reparametrise, widen, cut_to_integers])
def test_what_could_not_be_read_back_replaces_nothing(make_one, spoil, tmp_path):
    good, bad = make_one(), make_one()
    good.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    spoil(bad)
    with pytest.raises((ValueError, FloatingPointError), match="left as it was"):
        bad.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises((ValueError, FloatingPointError)):
        bad.save_pretrained(tmp_path / "new")


def test_files_that_are_too_large_to_be_read_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "LARGEST", 10_000)
    with pytest.raises(ValueError, match=r"bytes are more than 10,000.*left as it was"):
        make().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_of_another_program_are_said_to_have_no_checksum(tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load(path.read_bytes()), path)
    with pytest.raises(vae.FileError, match="its SHA-256 is missing, which save_pretrained writes"):
        vae.VAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...\nmore"),
], ids=["Python", "GPU", "CPU"])  # fmt: skip
def test_too_little_memory_is_one_line(error, tmp_path, monkeypatch, capsys, undrawn):
    run = [*SHORT_RUN, "--run-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "take_step", failing(error))
        assert main([*run, "--batch-size", "64"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("vae: batch_size=64 needs more memory than there is; try less")
    assert "more" not in said.removeprefix("vae: batch_size=64 needs more")
    assert (tmp_path / "run" / CHECKPOINT_NAME).is_file()  # of step 0
    assert main([*run, "--batch-size", "32"]) == 0
    assert folders.is_finished(tmp_path / "run")
    monkeypatch.setattr(loop.Training, "take_step", failing(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):  # which is no lack of memory
        main([*SHORT_RUN, "--run-dir", str(tmp_path / "other")])


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_training_in_a_folder_of_any_name_ends_well(encoding, tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding))
    assert main([*SHORT_RUN, "--run-dir", "数字 ﬁ é"]) == 0
    assert main(["evaluate", "数 é"]) == 2
    said = [stream.buffer.getvalue() for stream in (sys.stdout, sys.stderr) if not stream.flush()]
    for text, written in zip(("are in 数字 ﬁ é/", "vae: 数 é/config.json"), said, strict=True):
        assert text.encode(encoding, "backslashreplace") in written
    assert folders.is_finished(Path("数字 ﬁ é"))


def test_a_users_own_vae_py_is_not_in_the_way_of_the_command(tmp_path):
    (tmp_path / "vae.py").write_text("raise SystemExit('mine')")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    module, function = re.search(r'(?m)^vae = "(.+):(.+)"$', text).groups()
    (tmp_path / "bin").mkdir()  # as pip writes it
    code = f"import sys\nfrom {module} import {function}\nsys.exit({function}())"
    (tmp_path / "bin" / "vae").write_text(code)
    command, env = [sys.executable, "bin/vae", "evaluate", "nowhere"], {"PYTHONPATH": str(ROOT)}
    how = {"capture_output": True, "text": True, "env": os.environ | env, "cwd": tmp_path}
    done = subprocess.run(command, **how)
    assert (done.returncode, done.stderr[:23]) == (2, "vae: nowhere/config.jso")
    assert vae.__version__ == importlib.metadata.version("vae-mnist")


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("labels", [[7], list(range(1, 11)), list(range(0, 250, 5))])
def test_any_number_of_classes_is_drawn_right(labels, tmp_path, monkeypatch):
    data_set(tmp_path, labels)
    if labels[0]:  # with most classes, it is painted, too
        helpers.paint_nothing(monkeypatch)
    config = config_of(dataset="fashion_mnist", data_root=tmp_path)
    run = vae.train(config, tmp_path / "run")
    assert "test" in run.metrics
    pictures = {"latent.gif", "reconstruction.gif", "interpolation.gif", "samples.png"}
    assert pictures <= in_folder(run.directory) <= set(folders.FILES)
    assert len(run.frames.classes) == 10
    assert sorted(set(run.frames.classes.tolist())) == labels[:10]
    assert set(run.frames.labels.tolist()) == set(labels)
    page = animations.latent_frames(run.frames, "", 2)[0]
    shown = [text.get_text() for text in page.texts if text.get_text().isdigit()]
    named = labels if len(labels) > 1 else []  # a single class is not named
    assert shown == [str(label) for label in named[:30]]
    digits = vae.load_digits("test", "fashion_mnist", tmp_path)
    assert len(figures.plot_examples(digits, "").axes[0].get_yticks()) == min(30, len(named))


@pytest.mark.parametrize(("labels", "images", "classes"), [
    (list(range(1, 11)), 32, 11), ([1, 2, 3, 4], 32, 4), ([3, 5], 32, 6), ([3, 5], 32, 2),
    ([0, 1], 32, 10), ([7], 32, 1), (list(range(0, 250, 5)), 32, 50), (list(range(10)), 8, 10),
])  # fmt: skip
def test_a_class_that_is_not_seen_is_refused_before_training(labels, images, classes, tmp_path):
    data_set(tmp_path, labels)
    options = {"max_train_images": images, "batch_size": 8, "data_root": tmp_path}
    config = config_of(classes, dataset="fashion_mnist", **options)
    found = ", ".join(map(str, sorted(set(labels[:images]))[:12]))
    said = rf"num_classes={classes} is not allowed.*{images} train images of dataset='fashion_mnist"
    with pytest.raises(ValueError, match=rf"{said}' have \d+ classes, {found}"):
        vae.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("classes", [2, 26])
def test_a_conditional_run_of_other_classes_is_drawn_and_has_a_prior(classes, tmp_path, unpainted):
    data_set(tmp_path, list(range(classes)), 10 * classes + 60)
    options = {"max_train_images": 64, "max_test_images": 52, "data_root": tmp_path}
    config = config_of(classes, None, dataset="fashion_mnist", **options)
    run = vae.train(config, tmp_path / "run")
    options, wrong = {"epochs": 1, "max_train_images": 64, "batch_size": 32}, classes + 1
    of = vae.PriorConfig(channels=16, blocks=1, steps=1, num_classes=wrong)
    with pytest.raises(ValueError, match=rf"num_classes={wrong} .*{classes} classes"):
        vae.train_prior(run.directory, vae.PriorTrainConfig(of, **options))
    of = replace(of, num_classes=10)  # the default, which is those of the data
    prior = vae.train_prior(run.directory, vae.PriorTrainConfig(of, **options))
    assert run.model.sample(3, [classes - 1, 0, 1], None, prior).shape == (3, 1, 28, 28)
    assert len(figures.plot_digits(run.model, "").axes[0].images[0].get_array()) == 30 * classes
    assert figures.plot_samples(run.model, "", prior=prior).axes
    unfit = {"manifold.png"}  # for two values, without classes
    assert {path.name for path in render(run)} == {*folders.PICTURES, "prior_samples.png"} - unfit
    assert in_folder(run.directory) <= set(folders.FILES)


def test_only_what_this_package_writes_is_removed_or_replaced(tiny, tmp_path):
    mine = [".config.20240101.json", ".model.123.safetensors", ".keep", "notes.1.txt",
            f"{TEMPORARY}notes.txt", f"{TEMPORARY}1-2-notes.txt", "weights.npz"]  # fmt: skip
    ours = [f"{TEMPORARY}12-345-{name}" for name in folders.FILES]
    for name in mine + ours:
        (tmp_path / name).write_text("mine")
    with folders.lock(tmp_path):
        assert in_folder(tmp_path) == set(mine)
    for name in ("config.json", "model.safetensors", "samples.png", "frames.npz", "metrics.json"):
        (theirs := tmp_path / f"of {name}").mkdir()
        for mine in (name, folders.LOCK_NAME):  # many programs have such a lock
            (theirs / mine).write_text("mine")
        with pytest.raises(ValueError, match=name):
            vae.train(tiny(), theirs)
        assert [path.read_text("utf-8") for path in theirs.iterdir()] == ["mine", "mine"]


def test_somebodys_prior_in_a_runs_folder_is_not_replaced(folder):
    mine = vae.LatentPrior(vae.PriorConfig(3, channels=16))
    mine.save_pretrained(folder)
    before = (folder / "prior.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"it has prior\.json, prior\.safetensors, which no train"):
        vae.train_prior(folder, small_prior())
    assert (folder / "prior.safetensors").read_bytes() == before


def test_what_a_file_system_cannot_do_is_done_without(small, tmp_path, monkeypatch, unpainted):
    config, alone = small
    for of, name, number in (
        (os, "chmod", errno.EPERM), (Path, "chmod", errno.EPERM), (os, "unlink", errno.EPERM),
        (os, "fsync", errno.ENOSYS), (shutil, "disk_usage", errno.ENOSYS),
        (fcntl, "flock", errno.ENOSYS),
    ):  # fmt: skip
        monkeypatch.setattr(of, name, unsupported(number))
    (tmp_path / folders.LOCK_NAME).touch()  # left by a training, where there were locks
    with pytest.warns(UserWarning, match="has no locks: start one training at a time there"):
        run = vae.train(config, tmp_path)
    assert same(run.model, alone.model)
    assert len(list(tmp_path.glob("*.gif"))) == 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    folders.check_directory(tmp_path)


def test_an_error_names_the_users_file_and_never_a_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    nowhere, said = tmp_path / "no" / path.name, r"metrics\.json could not be written"
    full = errno.ENOSPC, errno.EDQUOT, errno.EIO
    for there, number in (*((path, number) for number in full), (nowhere, errno.ENOENT)):
        monkeypatch.setattr(os, "fsync", unsupported(number))
        with pytest.raises(OSError, match=said) as error:
            write_atomically(there, b"new")
        assert os.strerror(number) in str(error.value)
        assert TEMPORARY not in str(error.value)
    assert in_folder(tmp_path) == {"metrics.json"}
    assert path.read_text("utf-8") == "old"
    with pytest.raises(ValueError, match=r"metrics\.json is a file, a folder is expected"):
        folders.check_directory(path / "run")


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && "$2" -c '
import json, sys, vae
from helpers import small_prior
from vae.machinery.cli import main
run = sys.argv[1]
config = json.load(open(run + "/metrics.json"))["config"]
assert "test" in vae.train(vae.TrainConfig(**config), run).metrics
vae.train_prior(run, small_prior(epochs=1))
assert main(["evaluate", run, "--lpips-images", "0"]) == 0
assert main(["render", run]) == 2
assert main(["train", "--run-dir", run + "/new"]) == 2' "$1"
"""


def test_a_finished_run_on_a_read_only_disk_is_only_read(small, tmp_path):
    probe = ["unshare", "-m", "mount", "--bind", tmp_path, tmp_path]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    shutil.copytree(small[1].directory, tmp_path / "run")
    vae.train_prior(tmp_path / "run", small_prior(epochs=1))
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", tmp_path / "run", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written to") == 2, done.stderr


def test_a_folder_that_takes_no_checkpoint_is_found_before_a_step(small, tmp_path, monkeypatch):
    config, _ = small
    monkeypatch.setattr(loop, "take_steps", refuse)
    monkeypatch.setattr(os, "replace", unsupported(errno.EACCES))
    with pytest.raises(OSError, match=r"checkpoint\.safetensors could not be written: Permission"):
        vae.train(config, tmp_path)


def test_a_training_depends_on_its_arguments_alone(small, tmp_path, request, unpainted):
    config, alone = small
    torch.manual_seed(5)

    def state():
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = *modes, torch.get_default_dtype(), torch.get_default_device()
        return *found, dict(matplotlib.rcParams), torch.get_rng_state().tolist()

    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    half, there = torch.autocast("cpu", torch.bfloat16), torch.device("meta")
    with torch.no_grad(), half, torch.inference_mode(), there:
        before = state()
        run = vae.train(config, tmp_path)
        assert state() == before
    assert same(run.model, alone.model)
    assert run.metrics["test"] == alone.metrics["test"]
    assert without_clocks(run.metrics["history"]) == without_clocks(alone.metrics["history"])


def test_in_half_precision_every_step_sees_its_own_weights(begin, tmp_path):
    """Autocast keeps copies of weights until the outermost of its contexts is left."""

    def losses():
        training = helpers.advance(begin(mixed_precision="bf16"), 4)
        return [{k: float(v) for k, v in terms.items()} for terms in training.recent]

    alone = losses()
    with isolated(1, tmp_path):
        assert losses() == alone
    with torch.autocast("cpu", torch.bfloat16), isolated(1, tmp_path):
        assert losses() == alone


def test_trainings_in_threads_are_those_of_a_lone_one(small, tmp_path, undrawn):
    config, alone = small
    few = {"mixed_precision": "bf16", "epochs": 1, "max_train_images": 64}
    start, configs = threading.Barrier(2), (config, replace(config, **few))

    def train(config: vae.TrainConfig) -> vae.Run:
        start.wait()
        return vae.train(config, tmp_path / config.mixed_precision)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(train, configs))
    assert [same(run.model, alone.model) for run in runs] == [True, False]
    assert runs[0].metrics["test"] == alone.metrics["test"]


def test_before_the_first_evaluation_commands_say_so(tiny, tmp_path, monkeypatch, capsys, folder):
    interrupt_at(monkeypatch, 1)
    run = vae.train(tiny({"latent_size": 3}), tmp_path / "run")
    assert run.metrics["interrupted"] == 1
    run.model.save_pretrained(tmp_path / "saved")
    for name in ("config.json", "model.safetensors", "metrics.json"):  # as they are written
        said = f"only a checkpoint is there, and no {name} yet, since the training was cut off: "
        for command in ("render", "evaluate", "train-prior"):
            assert main([command, str(tmp_path / "run")]) == 2
            heard = capsys.readouterr().err
            cut = (name, command) == ("metrics.json", "train-prior")
            assert ("finish it first (--resume)" if cut else f"{said}--resume goes on") in heard
        if (tmp_path / "saved" / name).is_file():
            shutil.copy(tmp_path / "saved" / name, tmp_path / "run")
    with pytest.raises(vae.FileError, match="cut off before its first evaluation"):
        render(run)
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        vae.train_prior(folder, small_prior())
    with pytest.raises(vae.FileError, match=r"no prior\.json yet, since .* --resume"):
        vae.LatentPrior.from_pretrained(folder)


def test_a_home_folder_is_found(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = make(latent_size=3)
    model.save_pretrained("~/saved")
    assert same(vae.VAE.from_pretrained("~/saved"), model)
    monkeypatch.setattr(loop, "take_steps", lambda training: False)
    assert vae.train(tiny(), "~/run").directory == tmp_path / "run"
    assert in_folder(tmp_path) == {"saved", "run"}


def test_a_command_of_which_nobody_reads_does_its_work(one_by_one, tmp_path):
    shutil.copytree(one_by_one["manifold"][1].directory, tmp_path / "run")
    (tmp_path / "run" / "latent.gif").unlink()
    metrics = folders.read_metrics(tmp_path / "run")
    metrics["history"] = {kind: of_mse(rows) for kind, rows in metrics["history"].items()}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    command = [sys.executable, "-m", "vae", "render", tmp_path / "run"]
    read, write = os.pipe()
    os.close(read)  # nobody reads from the start
    with os.fdopen(write, "wb") as broken:
        done = subprocess.run(command, stdout=broken, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "latent.gif").is_file()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("closed"), None])
def test_work_goes_on_when_nobody_reads_it(error, one_by_one, tmp_path, monkeypatch, undrawn):
    config, alone = one_by_one["manifold"]
    with monkeypatch.context() as patched:
        gone = error and SimpleNamespace(write=failing(error), flush=lambda: None)
        patched.setattr(sys, "stderr", gone)
        patched.setattr(sys, "stdout", None)  # as with `>&-`
        run = vae.train(config, tmp_path)
        vae.evaluate(run.model, vae.load_digits("test").images[:5], lpips_images=0, progress=True)
        assert main(["evaluate", str(tmp_path), "--lpips-images", "0"]) == 0
        assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "test" in run.metrics
    assert same(run.model, alone.model)


@pytest.mark.filterwarnings("error::UserWarning")
def test_pictures_do_not_depend_on_the_users_matplotlibrc(small, tmp_path):
    _, alone = small
    few = {kind: of_mse(rows) for kind, rows in alone.metrics["history"].items()}
    run = Run(tmp_path, alone.model, alone.metrics | {"history": few}, alone.frames)
    plain = {path.name: path.read_bytes() for path in render(run)}
    theirs = {"text.usetex": True, "font.family": "no such font", "axes.facecolor": "red",
              "savefig.dpi": 20, "savefig.bbox": "tight", "font.size": 30}  # fmt: skip
    with matplotlib.rc_context(theirs):
        again = {path.name: path.read_bytes() for path in render(run)}
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"]) == (30, True)
    assert again.keys() == plain.keys()
    assert [name for name in plain if again[name] != plain[name]] == []


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """Runs that a step finishes: one draws a manifold, one is conditional."""
    configs = {"manifold": config_of(), "digits": config_of(10, max_test_images=20)}
    with pytest.MonkeyPatch.context() as patched:
        helpers.paint_nothing(patched)
        return {name: (config, vae.train(config, tmp_path_factory.mktemp(name)))
                for name, config in configs.items()}  # fmt: skip


@pytest.mark.parametrize(("kind", "functions", "left"), [
    ("manifold", "reconstruction_frames plot_manifold plot_curves",
     "latent.gif interpolation.gif samples.png"),
    ("digits", "latent_frames interpolation_frames plot_samples plot_digits",
     "reconstruction.gif train_metrics.png test_metrics.png"),
    ("manifold", "save_gif to_png", ""),
])  # fmt: skip
def test_a_training_whose_pictures_fail_is_finished_and_the_rest_is_drawn(
    kind, functions, left, one_by_one, tmp_path, monkeypatch, unpainted
):
    config, alone = one_by_one[kind]
    everything = in_folder(alone.directory) & set(folders.PICTURES)
    with monkeypatch.context() as patched:
        for name in functions.split():
            module = animations if hasattr(animations, name) else figures
            patched.setattr(module, name, refuse)
        said = r"was not drawn \(RuntimeError: a picture fails\); python -m vae render"
        with pytest.warns(UserWarning, match=said):
            run = vae.train(config, tmp_path)
        with pytest.warns(UserWarning, match=said):
            drawn = {path.name for path in render(run)}
    assert "test" in run.metrics
    assert not (tmp_path / CHECKPOINT_NAME).exists()
    assert drawn == in_folder(tmp_path) & set(folders.PICTURES) == set(left.split())
    assert {path.name for path in render(Run.load(tmp_path))} == everything


def test_a_prior_whose_picture_fails_is_finished(folder, monkeypatch, unpainted):
    monkeypatch.setattr(figures, "plot_digits", refuse)
    with pytest.warns(UserWarning, match=r"prior_samples\.png was not drawn"):
        vae.train_prior(folder, small_prior(epochs=1))
    unwanted = {"prior_checkpoint.safetensors", "prior_samples.png"}
    assert in_folder(folder) & (unwanted | {"prior_metrics.json"}) == {"prior_metrics.json"}
    vae.LatentPrior.from_pretrained(folder)


def test_a_run_that_was_killed_while_drawn_goes_on(one_by_one, tmp_path, monkeypatch, unpainted):
    config, alone = one_by_one["manifold"]
    with monkeypatch.context() as patched:
        patched.setattr(animations, "save_gif", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            vae.train(config, tmp_path)
    assert Run.load(tmp_path).metrics["test"] == alone.metrics["test"]
    assert same(vae.train(config, tmp_path).model, alone.model)
    assert (tmp_path / "latent.gif").is_file()
