"""The GIFs: when their frames are recorded, what they hold, and how they are drawn."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from common import ASSETS
from helpers import advance, make
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageSequence
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from skimage.metrics import peak_signal_noise_ratio
from sklearn.manifold import TSNE, trustworthiness

import vae
from vae.machinery import animations, figures, loop
from vae.machinery.frames import Frames, components, frame_steps, project_frames

MOVE = 0.1  # the most that half of the points move between two frames, in units of the cloud's size
MOST_BYTES = 2.5e6  # of a GIF


def moves(points):
    """The median move of the points from each frame to the next, after alignment."""
    found = []
    for one, two in pairwise(points):
        a, b, _ = procrustes(one, two)  # both of length 1 in all
        found.append(np.median(np.linalg.norm(a - b, axis=1)) * np.sqrt(len(a)))
    return np.array(found)


@pytest.mark.parametrize("total", [1, 36, 750, 5625])
@pytest.mark.parametrize("count", [1, 2, 36, 100])
def test_frames_are_close_together_at_the_start_and_the_last_step_has_one(total, count):
    steps = frame_steps(total, count)
    assert len(steps) == len(set(steps)) == min(total, count)
    assert steps == sorted(steps)
    assert steps[-1] == total
    if count > 1:
        assert 1 <= steps[0] <= max(1, round(total / 500))
    if total > 10 * count and count > 10:
        late = np.array(steps)[np.diff(steps, prepend=steps[0]) > 5]
        ratios = late[1:] / late[:-1]
        assert len(ratios) > 5
        assert np.allclose(ratios, ratios.mean(), rtol=0.05)  # equal in the logarithm


def record(*epochs, **options):
    """Frames of models with random weights, of 100 test digits; and the last of the models."""
    digits = vae.Digits(*(part[:100] for part in vae.load_digits("test")))
    frames = Frames(digits, 100)
    for epoch in epochs:
        model = make(**options).eval()
        torch.nn.init.normal_(model.encoder.conv_out.weight, std=epoch)
        frames.record(model, digits, epoch)
    return frames, model, digits


def titles(frames, t=0):
    """The titles of the curves below a frame."""
    axes = animations.reconstruction_frames(frames, "name")[t].axes
    return [one.get_title("left") for one in axes if one.get_title("left")]


@torch.no_grad()
def test_a_frame_holds_two_values_as_they_are_the_rate_and_samples_of_the_posterior():
    frames, model, digits = record(0.25, 0.5, latent_size=2, latent_grid=1)
    posterior = model.encode(vae.scale_images(digits.images))
    assert np.allclose(frames.points[-1], posterior.mean.flatten(1), rtol=1e-3)
    assert not len(frames.latents)
    assert frames.epochs.tolist() == [0.25, 0.5]
    examples = vae.scale_images(digits.images[frames.examples])
    q, generator = model.encode(examples), torch.Generator().manual_seed(0)
    y = model.decode(q.sample(torch.randn(q.mean.shape, generator=generator)))[:, 0]
    kl = posterior.kl(torch.randn(posterior.mean.shape, generator=generator)).mean()
    assert frames.kl[-1] == pytest.approx(kl.item(), rel=1e-5)
    assert np.allclose(frames.reconstructions[-1], y, atol=1e-3)
    assert np.allclose(frames.originals, examples[:, 0], atol=1e-3)


def test_a_plain_autoencoder_has_no_rate_and_its_training_goes_on(tiny, tmp_path, unpainted):
    options = {"beta": 0.0, "w_perceptual": 0.0, "lpips_images": 0, "max_train_images": 128}
    config = tiny({"variational": False}, frames=2, early_evaluations=0, **options)
    alone = vae.train(config, tmp_path / "alone")
    trainer = vae.Trainer(config, tmp_path / "run")
    trainer.directory.mkdir()
    advance(trainer, 3).recorder.record_frame()
    loop.save(trainer)
    run = vae.train(config, trainer.directory)
    for name in ("points", "reconstructions"):
        last = getattr(alone.frames, name)[-1]
        assert np.array_equal(getattr(run.frames, name)[-1], last), name
    frames = vae.Run.load(trainer.directory).frames
    assert np.isnan(frames.kl).all()
    assert frames.kl.shape == frames.epochs.shape
    assert [title[:4] for title in titles(frames)] == ["PSNR"]


@pytest.mark.filterwarnings("error")
def test_a_perfect_reconstruction_and_no_frame_at_all_are_no_trouble(tmp_path):
    frames, *_ = record(0.25, 0.5, latent_size=2, latent_grid=1)
    frames.reconstructions[0] = frames.originals
    assert "PSNR 106.0 dB" in titles(frames)
    path, frames.epochs = tmp_path / "frames.npz", frames.epochs[:, None]
    frames.save(path)
    with pytest.raises(vae.FileError, match=r"epochs is not \(2,\)"):
        Frames.load(path)
    frames.epochs, frames.kl = frames.epochs[:, 0], frames.kl[:1]
    frames.save(path)
    with pytest.raises(vae.FileError, match=r"kl is not \(2,\)"):
        Frames.load(path)
    Frames(vae.load_digits("test"), 20).save(path)
    assert not len(Frames.load(path).epochs)


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


def test_frames_are_read_as_they_were_saved(tmp_path):
    frames, *_ = record(0.25, 0.5, latent_size=2)

    for name, shape in (("latents", (2, 100, 50)), ("points", (2, 100, 2))):
        assert getattr(frames, name).shape == shape
        frames.save(tmp_path / "frames.npz")
        np.testing.assert_equal(Frames.load(tmp_path / "frames.npz").arrays(), frames.arrays())
        frames.project()


def test_a_reconstruction_stands_below_its_image_and_the_curves_end_at_the_frame():
    frames, *_ = record(0.25, 0.5, 1.0, latent_size=2)
    figure = animations.reconstruction_frames(frames, "name")[1]
    tiles = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    cells = np.stack(tiles).reshape(2, 2, 30, 5, 30).swapaxes(2, 3)[..., 1:-1, 1:-1]
    assert np.array_equal(cells[:, 0].reshape(10, 28, 28), frames.originals)
    assert np.array_equal(cells[:, 1].reshape(10, 28, 28), frames.reconstructions[1])
    pairs = zip(frames.originals, frames.reconstructions[1], strict=True)
    psnr = np.mean([peak_signal_noise_ratio(x, y, data_range=2) for x, y in pairs])
    assert titles(frames, 1) == [f"PSNR {psnr:.1f} dB", f"KL {frames.kl[1]:.0f} nats"]
    *_, kl_axes = (axes for axes in figure.axes if axes.lines)
    assert kl_axes.lines[0].get_ydata().tolist() == frames.kl[:2].tolist()
    assert "epoch 0.5" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("values", [1, 2, 98])
def test_no_text_is_cut_off(values):
    frames, *_ = record(0.01, 120, latent_size=2, latent_grid=1)
    frames.points = 300 * np.random.default_rng(0).normal(size=(2, 100, 2)).astype(np.float32)
    frames.kl *= 1e5
    name = figures.describe(vae.VAEConfig(16), "emnist_digits")
    drawn = animations.latent_frames(frames, name, values)
    drawn += animations.reconstruction_frames(frames, name)
    for figure in drawn:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
        boxes = [text.get_window_extent(renderer) for text in texts]
        assert len(boxes) > 4
        for box in boxes:
            assert 0 <= box.x0 < box.x1 <= 480, box
            assert 0 <= box.y0 < box.y1 <= 640, box
    assert "epoch 120" in [text.get_text() for text in drawn[-1].texts]


def test_below_the_plane_is_a_key_to_the_colours_of_its_points():
    frames, *_ = record(0.5, latent_size=2, latent_grid=1)
    (figure,) = animations.latent_frames(frames, "", 2)
    digits = [text for text in figure.texts if text.get_text().isdigit()]
    assert [text.get_text() for text in digits] == list("0123456789")
    (dots,) = (axes.collections[0] for axes in figure.axes if axes.collections)
    for digit, text, mark in zip(range(10), digits, figure.artists, strict=True):
        colour = dots.get_facecolor()[list(frames.labels).index(digit)]
        assert np.allclose(to_rgba(mark.get_color()), colour)
        assert abs(mark.get_xdata()[0] - text.get_position()[0]) < 0.02


@pytest.mark.parametrize("size", [2, 4, 16])
@torch.no_grad()
def test_the_shipped_gifs_move_smoothly_are_small_and_end_as_good_as_the_model(size):
    run, steps = vae.Run.load(ASSETS / f"latent_{size}"), frame_steps(5625, 36)
    frames = run.frames
    assert np.allclose(frames.epochs * 1875, steps)
    assert moves(frames.points).max() < MOVE
    assert np.isfinite(frames.kl).all()
    for name in ("latent", "reconstruction"):
        path = run.directory / f"{name}.gif"
        assert path.stat().st_size <= MOST_BYTES
        with Image.open(path) as gif:
            assert (gif.n_frames, gif.size) == (36, (480, 640))
            times = [gif.seek(k) or gif.info["duration"] for k in range(36)]
        assert 6000 <= sum(times) <= 8000
        assert times[-1] >= 10 * times[0]
    x, shown = (torch.from_numpy(part)[:, None].float() for part in
                (frames.originals, frames.reconstructions[-1]))  # fmt: skip
    q = run.model.encode(x)
    noise = torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(0))
    psnr = vae.psnr(x, run.model.decode(q.sample(noise))).mean()
    assert vae.psnr(x, shown).mean() == pytest.approx(psnr, abs=0.5)
    assert frames.kl[-1] == pytest.approx(run.metrics["test"]["kl"], rel=0.03)


def test_gifs_of_the_most_that_is_drawn_stay_small(tmp_path):
    """Frames that all differ, in points and in ten digits: six of the 36."""
    frames, rng = Frames(vae.load_digits("test"), 2000), np.random.default_rng(0)
    places = rng.normal(size=(10, 2))[frames.labels] * 2 + rng.normal(size=(2000, 2))
    drift = 0.2 * rng.normal(size=(2000, 2))
    frames.points = np.stack([places + t * drift for t in range(0, 36, 7)]).astype(np.float32)
    noise = rng.normal(size=(6, 10, 28, 28)).astype(np.float32)
    frames.reconstructions = (frames.originals + 0.1 * noise).clip(-1, 1)
    frames.epochs, frames.kl = np.arange(1.0, 7), np.arange(6.0)
    drawn = animations.latent_frames(frames, "", 2), animations.reconstruction_frames(frames, "")
    for number, pages in enumerate(drawn):
        animations.save_gif(tmp_path / f"{number}.gif", pages, 138, 2000)
    assert all(path.stat().st_size <= MOST_BYTES * 6 / 36 for path in tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_a_gif_keeps_its_frames_durations_and_colours(count, tmp_path):
    drawn = [Figure(figsize=(1, 1)) for _ in range(count)]
    for k, figure in enumerate(drawn):
        figure.add_subplot().plot([0, k, 1], color=animations.COLOURS[k])
    animations.save_gif(tmp_path / "x.gif", drawn, 400, 2500)
    with Image.open(tmp_path / "x.gif") as gif:
        assert (gif.n_frames, gif.info["loop"]) == (count, 0)
        shown = [gif.seek(k) or gif.info["duration"] for k in range(count)]
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    allowed = {tuple(colour) for colour in animations.PALETTE}
    assert set(map(tuple, np.reshape(frames, (-1, 3)))) <= allowed
    assert shown == [400] * (count - 1) + [2500]
