"""The GIFs: when their frames are recorded, what they hold, and what is drawn of them."""

import warnings
from dataclasses import replace
from itertools import pairwise

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from common import ASSETS
from helpers import make
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from skimage.metrics import peak_signal_noise_ratio
from sklearn.manifold import TSNE, trustworthiness

import vae
from vae.machinery import loop
from vae.machinery.trainings import Trainer
from vae.machinery import animations, figures
from vae.machinery.animations import apart, latent_frames, reconstruction_frames, save_gif
from vae.machinery.frames import ARRAYS, Frames, components, frame_steps, project_frames
from vae.machinery.run import Run

SIZES = pytest.mark.parametrize("size", [2, 4, 16])
MOVE = 0.1  # the most that half of the points move between two frames, in units of the cloud's size


def moves(points):
    """The median move of the points from each frame to the next, after alignment."""
    found = []
    for one, two in pairwise(points):
        a, b, _ = procrustes(one, two)  # both of length 1 in all
        found.append(np.median(np.linalg.norm(a - b, axis=1)) * np.sqrt(len(a)))
    return np.array(found)


@pytest.mark.parametrize("total", [1, 10, 36, 100, 750, 5625])
@pytest.mark.parametrize("count", [1, 2, 36, 100])
def test_frames_are_close_together_at_the_start_and_the_last_step_has_one(total, count):
    steps = frame_steps(total, count)
    assert len(steps) == len(set(steps)) == min(total, count)
    assert steps == sorted(steps)
    assert steps[-1] == total
    if count > 1:
        assert 1 <= steps[0] <= max(1, round(total / 500))
    gaps = np.diff(steps)
    if total > 10 * count and count > 10:
        late = np.array(steps)[np.array([0, *gaps]) > 5]
        ratios = late[1:] / late[:-1]
        assert len(ratios) > 5
        assert np.allclose(ratios, ratios.mean(), rtol=0.05)  # equal in the logarithm


def record(epochs, **options):
    """Frames of models with random weights, of 100 test digits; and the last of the models."""
    digits = vae.Digits(*(part[:100] for part in vae.load_digits("test")))
    frames = Frames(digits, 100)
    for epoch in epochs:
        model = make(**options).eval()
        torch.nn.init.normal_(model.encoder.conv_out.weight, std=epoch)
        frames.record(model, digits, epoch)
    return frames, model, digits


def test_a_frame_holds_two_values_as_they_are_the_rate_and_draws_of_the_posterior():
    frames, model, digits = record([0.25, 0.5], latent_size=2, latent_grid=1)
    with torch.no_grad():
        posterior = model.encode(vae.scale_images(digits.images))
        mean = posterior.mean
    assert np.allclose(frames.points[-1], mean.flatten(1), atol=1e-6)
    assert not len(frames.latents)
    assert frames.epochs.tolist() == [0.25, 0.5]
    examples = vae.scale_images(digits.images[frames.examples])
    with torch.no_grad():
        q, generator = model.encode(examples), torch.Generator().manual_seed(0)
        y = model.decode(q.sample(torch.randn(q.mean.shape, generator=generator)))[:, 0]
        kl = posterior.kl(torch.randn(posterior.mean.shape, generator=generator)).mean()
    assert frames.kl[-1] == pytest.approx(kl.item(), rel=1e-5)
    assert np.allclose(frames.reconstructions[-1], y, atol=1e-6)
    assert np.array_equal(frames.originals, examples[:, 0])


def test_an_autoencoder_has_no_rate_and_its_curve_is_left_out():
    frames, *_ = record([0.5], latent_size=2, variational=False)
    assert np.isnan(frames.kl).all()
    titles = [axes.get_title("left") for axes in reconstruction_frames(frames, "")[0].axes]
    assert [title[:4] for title in titles if title] == ["PSNR"]


def test_an_autoencoder_is_trained_and_goes_on_from_a_checkpoint(small, tmp_path, monkeypatch):
    config = replace(small[0], beta=0.0, model=replace(small[0].model, variational=False))
    alone = vae.train(config, tmp_path / "alone")
    trainer = Trainer(config, tmp_path / "run")
    (tmp_path / "run").mkdir()
    for _ in range(3):
        trainer.take_step()
    trainer.note()
    loop.save(trainer)
    run = vae.train(config, tmp_path / "run")
    for name in ("points", "reconstructions"):
        last = getattr(alone.frames, name)[-1]
        assert np.array_equal(getattr(run.frames, name)[-1], last), name
    assert Run.load(tmp_path / "run").frames.kl.shape == run.frames.epochs.shape


@pytest.mark.parametrize("grid", [7, 1])
def test_a_training_goes_on_that_recorded_its_frames_as_before(grid, small, tmp_path, monkeypatch):
    config = replace(small[0], model=replace(small[0].model, latent_grid=grid))
    alone = small[1] if grid == 7 else vae.train(config, tmp_path / "alone")
    trainer = Trainer(config, tmp_path / "run")
    (tmp_path / "run").mkdir()
    for _ in range(3):
        trainer.take_step()
    trainer.note()
    trainer.frames.project()
    older = trainer.record()
    for name in ("kl", "latents"):
        del older[f"frames.{name}"]
    monkeypatch.setattr(trainer, "record", lambda: older)
    loop.save(trainer)
    run = vae.train(config, tmp_path / "run")
    assert len(run.frames.epochs) == len(run.frames.points) == len(alone.frames.epochs) - 1
    assert np.isfinite(run.frames.kl).all()
    assert Run.load(tmp_path / "run").metrics["test"] == alone.metrics["test"]


def test_a_perfect_reconstruction_and_no_frame_at_all_are_no_trouble(tmp_path):
    frames, *_ = record([0.25, 0.5], latent_size=2, latent_grid=1)
    frames.reconstructions[0] = frames.originals
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        titles = [axes.get_title("left") for axes in reconstruction_frames(frames, "")[0].axes]
    assert "PSNR 106.0 dB" in titles
    frames.epochs = frames.epochs[:, None]
    frames.save(tmp_path / "frames.npz")
    with pytest.raises(vae.FileError, match=r"epochs is not \(2,\)"):
        Frames.load(tmp_path / "frames.npz")
    frames = Frames(vae.load_digits("test"), 20)
    frames.save(tmp_path / "frames.npz")
    assert not len(Frames.load(tmp_path / "frames.npz").epochs)


def test_what_is_kept_of_a_latent_has_its_distances():
    latents = torch.randn(40, 98) @ torch.randn(98, 30) @ torch.randn(30, 98)
    kept = components(latents)
    assert kept.shape == (40, 50)
    ratio = pdist(kept) / pdist(latents)
    assert np.allclose(ratio, ratio.mean(), rtol=1e-4)
    assert kept.square().sum(1).mean() == pytest.approx(1)
    assert torch.equal(components(torch.ones(5, 3)), torch.zeros(5, 3))
    assert torch.equal(components(latents[:, :2]), latents[:, :2])
    assert torch.equal(components(latents[:, :1])[:, 0], latents[:, 0])


def test_points_drift_where_fresh_projections_jump_and_show_what_is_near():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 20)) * 5
    latents = centres[rng.integers(5, size=200)] + rng.normal(size=(200, 20))
    frames = np.stack([latents + 0.1 * t * rng.normal(size=latents.shape) for t in (2, 1, 0)])
    frames = frames.astype(np.float32)
    points = project_frames(frames)
    fresh = [TSNE(random_state=k, init="random").fit_transform(x) for k, x in enumerate(frames)]
    assert moves(points).max() < MOVE < moves(fresh).min()
    for latent, place, alone in zip(frames, points, fresh, strict=True):
        assert trustworthiness(latent, place) > trustworthiness(latent, alone) - 0.02
    assert np.allclose(np.square(points).sum(2).mean(1), 1, atol=1e-4)  # as large as the others


def test_latents_that_are_all_the_same_have_a_place():
    same, others = np.ones((20, 5), np.float32), np.random.default_rng(0).normal(size=(20, 5))
    assert np.array_equal(project_frames(np.stack([same, same])), np.zeros((2, 20, 2)))
    first, second, last = project_frames(np.stack([others, same, others]).astype(np.float32))
    assert np.array_equal(second, last)
    assert not np.array_equal(first, second)


def test_frames_are_read_as_they_were_saved_and_older_ones_too(tmp_path):
    frames, *_ = record([0.25, 0.5], latent_size=2)
    path = tmp_path / "frames.npz"

    def as_saved():
        frames.save(path)
        read = Frames.load(path)
        for name in ARRAYS:
            assert np.array_equal(getattr(read, name), getattr(frames, name), equal_nan=True), name
        return read

    assert as_saved().latents.shape == (2, 100, 50)
    frames.project()
    assert as_saved().points.shape == (2, 100, 2)
    older = {name: array for name, array in frames.arrays().items() if name in (
        "labels", "originals", "epochs", "points", "reconstructions")}  # fmt: skip
    np.savez_compressed(path, **older)
    read = Frames.load(path)
    assert np.isnan(read.kl).all()
    assert read.classes.tolist() == list(range(10))
    assert len(latent_frames(read, "", 98)) == len(reconstruction_frames(read, "")) == 2


def test_a_reconstruction_stands_below_its_image_and_the_curves_end_at_the_frame():
    frames, *_ = record([0.25, 0.5, 1.0], latent_size=2)
    figure = reconstruction_frames(frames, "name")[1]
    tiles = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    cells = np.stack(tiles).reshape(2, 2, 30, 5, 30).swapaxes(2, 3)[..., 1:-1, 1:-1]
    assert np.array_equal(cells[:, 0].reshape(10, 28, 28), frames.originals)
    assert np.array_equal(cells[:, 1].reshape(10, 28, 28), frames.reconstructions[1])
    pairs = zip(frames.originals, frames.reconstructions[1], strict=True)
    psnr = np.mean([peak_signal_noise_ratio(x, y, data_range=2) for x, y in pairs])
    psnr_axes, kl_axes = (axes for axes in figure.axes if axes.lines)
    assert psnr_axes.get_title("left") == f"PSNR {psnr:.1f} dB"
    assert kl_axes.get_title("left") == f"KL {frames.kl[1]:.0f} nats"
    assert kl_axes.lines[0].get_ydata().tolist() == frames.kl[:2].tolist()
    assert "epoch 0.5" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("values", [1, 2, 98])
def test_no_text_is_cut_off(values):
    frames, *_ = record([0.01, 120], latent_size=2, latent_grid=1)
    frames.points = 300 * np.random.default_rng(0).normal(size=(2, 100, 2)).astype(np.float32)
    frames.kl *= 1e5
    name = figures.describe(vae.VAEConfig(16), "emnist_digits")
    drawn = latent_frames(frames, name, values) + reconstruction_frames(frames, name)
    for figure in drawn:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [
            t.get_window_extent(renderer) for t in figure.findobj(Text) if t.get_text().strip()
        ]
        assert len(boxes) > 4
        for box in boxes:
            assert 0 <= box.x0 < box.x1 <= 480, box
            assert 0 <= box.y0 < box.y1 <= 640, box
    assert "epoch 120" in [text.get_text() for text in drawn[-1].texts]


def test_each_class_is_named_at_its_centre_and_names_do_not_hide_each_other():
    frames, *_ = record([0.5], latent_size=2, latent_grid=1)
    frames.points = np.random.default_rng(0).normal(size=(1, 100, 2)).astype(np.float32)
    frames.points[0] += 20 * np.stack([frames.labels, frames.labels % 3], 1)
    (axes,) = (axes for axes in latent_frames(frames, "", 2)[0].axes if axes.texts)
    assert [text.get_text() for text in axes.texts] == list("0123456789")
    for digit, text in enumerate(axes.texts):
        place = axes.transData.inverted().transform(axes.transAxes.transform(text.get_position()))
        centre = np.median(frames.points[0, frames.labels == digit], 0)
        assert np.linalg.norm(place - centre) < 3
    crowd = apart(np.random.default_rng(0).normal(0.5, 0.02, size=(5, 2)), 0.1)
    assert pdist(crowd).min() > 0.095
    alone = np.array([[0.1, 0.1], [0.9, 0.9]])
    assert np.array_equal(apart(alone), alone)


@SIZES
def test_the_shipped_gifs_move_smoothly_are_small_and_rest_on_the_last_frame(size):
    folder = ASSETS / f"latent_{size}"
    frames, steps = Frames.load(folder / "frames.npz"), frame_steps(5625, 36)
    assert np.allclose(frames.epochs * 1875, steps)
    assert moves(frames.points).max() < MOVE
    assert np.isfinite(frames.kl).all()
    for name in ("latent", "reconstruction"):
        path = folder / f"{name}.gif"
        assert path.stat().st_size <= 2.5e6
        with Image.open(path) as gif:
            assert (gif.n_frames, gif.size) == (36, (480, 640))
            times = [gif.seek(k) or gif.info["duration"] for k in range(36)]
        assert 6000 <= sum(times) <= 8000
        assert times[-1] >= 10 * times[0]


@SIZES
def test_the_frames_of_a_shipped_run_are_of_a_training_as_good_as_its_model(size):
    run = Run.load(ASSETS / f"latent_{size}")
    x, frames = torch.from_numpy(run.frames.originals)[:, None], run.frames
    with torch.no_grad():
        q = run.model.encode(x)
        noise = torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(0))
        y = run.model.decode(q.sample(noise))
    shown = torch.from_numpy(frames.reconstructions[-1])[:, None]
    assert vae.psnr(x, shown).mean() == pytest.approx(vae.psnr(x, y).mean(), abs=0.5)
    assert frames.kl[-1] == pytest.approx(run.metrics["test"]["kl"], rel=0.03)


def test_gifs_of_the_most_that_is_drawn_stay_small_and_last_as_long(tmp_path):
    """Frames that all differ, in points and in ten digits."""
    frames = Frames(vae.load_digits("test"), 2000)
    rng = np.random.default_rng(0)
    places = rng.normal(size=(10, 2))[frames.labels] * 2 + rng.normal(size=(2000, 2))
    drift = 0.2 * rng.normal(size=(2000, 2)).astype(np.float32)
    frames.points = np.stack([places + t * drift for t in range(36)]).astype(np.float32)
    noise = rng.normal(size=(36, 10, 28, 28)).astype(np.float32)
    frames.reconstructions = (frames.originals + 0.1 * noise).clip(-1, 1)
    frames.epochs, frames.kl = np.arange(1.0, 37), np.arange(36.0)
    save_gif(tmp_path / "latent.gif", latent_frames(frames, "", 2), 138, 2000)
    save_gif(tmp_path / "reconstruction.gif", reconstruction_frames(frames, ""), 138, 2000)
    assert all(path.stat().st_size <= 2.5e6 for path in tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_a_gif_keeps_its_frames_durations_and_colours(count, tmp_path):
    figures = []
    for place in range(count):
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().plot([0, place, 1], color=animations.COLOURS[place])
        figures.append(figure)
    animations.save_gif(tmp_path / "x.gif", figures, 400, 2500)
    frames = iio.imread(tmp_path / "x.gif", index=None).reshape(-1, 3)
    allowed = {tuple(colour) for colour in animations.PALETTE}
    assert {tuple(pixel) for pixel in np.unique(frames, axis=0)} <= allowed
    with Image.open(tmp_path / "x.gif") as gif:
        assert (gif.n_frames, gif.info["loop"]) == (count, 0)
        shown = [gif.seek(k) or gif.info["duration"] for k in range(count)]
    assert shown == [400] * (count - 1) + [2500]
