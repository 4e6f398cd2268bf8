import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import vae
from vae.show import animations
from vae.show.animations import latent_frames, reconstruction_frames, save_gif
from vae.show.frames import Frames, project


def test_two_values_are_drawn_as_they_are():
    latents = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert np.array_equal(project(latents), latents)


def test_latents_that_are_all_the_same_have_a_place():
    assert np.array_equal(project(np.ones((20, 5), np.float32)), np.zeros((20, 2)))


def test_a_warm_start_drifts_where_a_fresh_one_jumps():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 20)) * 5
    latents = (centres[rng.integers(5, size=200)] + rng.normal(size=(200, 20))).astype(np.float32)
    later = latents + 0.1 * rng.normal(size=latents.shape).astype(np.float32)
    first = project(latents)

    def mean_step(points):
        return np.linalg.norm(points - first, axis=1).mean() / first.std()

    assert mean_step(project(later, first)) < 0.3
    assert mean_step(project(later)) > mean_step(project(later, first))


def test_gifs_of_a_full_training_stay_small(tmp_path):
    """25 frames of the most that is drawn: all test digits' two values, ten digits that change."""
    frames = Frames(vae.load_digits("test"), 10**9)
    rng = np.random.default_rng(0)
    places = rng.normal(size=(10, 2))[frames.labels] * 2 + rng.normal(size=(10_000, 2))
    drift = 0.2 * rng.normal(size=(10_000, 2)).astype(np.float32)
    frames.points = np.stack([places + t * drift for t in range(25)]).astype(np.float32)
    noise = rng.normal(size=(25, 10, 28, 28)).astype(np.float32)
    frames.reconstructions = (frames.originals + 0.1 * noise).clip(-1, 1)
    frames.epochs = np.arange(25.0)
    save_gif(tmp_path / "latent.gif", latent_frames(frames, "", 2), 400, 2500)
    save_gif(tmp_path / "reconstruction.gif", reconstruction_frames(frames, ""), 400, 2500)
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
