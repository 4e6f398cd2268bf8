import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vae
from vae.machinery.cli import main
from vae.machinery.frames import frame_steps


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A short run with everything in it, through the command line."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    arguments = (
        "train --latent-size 3 --channels 8 16 16 --num-classes 10 --epochs 2 --batch-size 32 "
        "--max-train-images 512 --max-test-images 100 --projected-images 100 --lpips-images 4 "
        f"--perceptual-share 0.05 --learning-rate 1e-2 --frames 4 --run-dir {directory}"
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
    steps = [3, 5, 8, 11, 13, 16, 32]  # five in the first epoch, and one at the end of each
    assert [16 * row["epoch"] for row in metrics["history"]["test"]] == steps
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


def test_gifs_have_frames_on_a_clock_of_their_own_and_render_draws_them_again(finished):
    place = finished.metrics["history"]["train"][-1]
    steps = frame_steps(place["step"], 4)
    assert np.allclose(finished.frames.epochs, np.array(steps) * place["epoch"] / place["step"])
    paths = [finished.directory / f"{name}.gif" for name in ("reconstruction", "latent")]
    drawn = [path.read_bytes() for path in paths]
    for path in paths:
        with Image.open(path) as gif:
            assert (gif.n_frames, gif.size) == (len(steps), (480, 640))
            first = np.asarray(gif.convert("L"), float)
            gif.seek(len(steps) - 1)
            assert np.abs(np.asarray(gif.convert("L"), float) - first).max() > 50
        path.unlink()
    assert main(["render", str(finished.directory)]) == 0
    assert drawn == [path.read_bytes() for path in paths]


def test_a_finished_run_is_loaded_or_refused_and_never_overwritten(finished, capsys):
    before = (finished.directory / "metrics.json").read_bytes()
    config = vae.TrainConfig(**finished.metrics["config"])
    assert vae.train(config, finished.directory).metrics == finished.metrics
    other = replace(config, beta=0.5, model=replace(config.model, latent_size=4))
    said = r"run_dir=.* \(beta 1\.0 there, 0\.5 here; latent_size 3 there, 4 here\)"
    with pytest.raises(ValueError, match=said):
        vae.train(other, finished.directory)
    assert main(["train", "--run-dir", str(finished.directory)]) == 2
    assert "other settings" in capsys.readouterr().err
    assert (finished.directory / "metrics.json").read_bytes() == before


def test_settings_that_do_not_fit_are_refused_before_any_work(tiny, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="w_mse=0 and w_perceptual=0"):
        vae.TrainConfig(w_mse=0, w_perceptual=0)
    with pytest.raises(ValueError, match=r"batch_size=64.*50 training images"):
        vae.train(tiny(batch_size=64, max_train_images=50), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    full = SimpleNamespace(free=2**20, total=2**40)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OSError, match="1 MiB free"):
        vae.train(tiny(), tmp_path / "run")


@pytest.mark.parametrize(("name", "content"), [
    ("metrics.json", "{"), ("metrics.json", "{}"), ("frames.npz", "x"),
    ("metrics.json", '{"config": {}, "history": {"train": [3]}}'),
    ("metrics.json", '{"config": {}, "history": {"train": [], "test": [{"epoch": 1, "mse": ""}]}}'),
])  # fmt: skip
def test_damaged_runs_are_refused_by_name(name, content, finished, tmp_path):
    shutil.copytree(finished.directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(vae.FileError, match=name):
        vae.Run.load(tmp_path)
