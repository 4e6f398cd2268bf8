"""The judge and what it measures, against scipy and against what must be so."""

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from scoring import SecondJudge, neighbourhoods
from train_judge import BLURRED, GHOSTS, blur, spoil_images

import vae
from vae import judge_images
from vae.machinery.judge import FOLDER, Judge, JudgeConfig, frechet_distance, nearest_mse


@pytest.fixture(scope="module")
def test_set():
    """MNIST's test digits in [-1, 1], and their labels."""
    images, labels = vae.load_digits("test")
    return vae.scale_images(images), labels


def test_the_judge_reads_the_test_digits(test_set):
    images, labels = (part[::4] for part in test_set)
    assert judge_images(images, labels, reference=images[:2])["accuracy"] >= 0.995
    assert (FOLDER / "model.safetensors").stat().st_size <= 1e6


@pytest.mark.parametrize("judge", [Judge, SecondJudge])
def test_a_judge_scores_real_digits_well_and_takes_no_blurred_one_and_no_noise_for_one(
    judge, test_set
):
    judge = judge.from_pretrained()
    (x, labels), reference = (part[:500] for part in test_set), test_set[0][1000:1500]

    def scores(images):
        return judge_images(images, labels, reference=reference, judge=judge)

    good = scores(x)
    bad = scores(2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1)
    assert good["accuracy"] > 0.99
    assert good["recognised"] > 0.98
    assert good["fid"] < 0.05 * bad["fid"]
    assert bad["accuracy"] < 0.3
    assert sum(good["classes"]) == pytest.approx(1)
    assert min(good["classes"]) > 0.07
    for size in (3, 5):
        blurred = scores(F.avg_pool2d(x + 1, size, 1, size // 2) - 1)
        assert blurred["recognised"] < 0.02, size
        assert blurred["grey"] > 1.5 * good["grey"]


def test_what_is_spoiled_is_less_sure_and_what_is_not_stays():
    x, labels = torch.rand(64, 1, 28, 28) * 2 - 1, torch.arange(64) % 10
    y, target = spoil_images(x, labels, torch.Generator().manual_seed(0))
    rest = BLURRED + GHOSTS
    assert torch.equal(y[rest:], x[rest:])
    assert torch.equal(target[rest:].argmax(1), labels[rest:])
    assert (target[rest:].max(1).values == 1).all()
    assert target.sum(1).numpy() == pytest.approx(1, abs=1e-6)
    assert (target[:BLURRED].max(1).values < 0.2).any()
    one = torch.zeros(1, 1, 28, 28) - 1
    one[0, 0, 14, 14] = 1  # a point becomes a Gaussian
    spread = blur(one, torch.tensor([1.5]))[0, 0] + 1
    place = torch.arange(28.0) - 14
    assert spread.sum().item() == pytest.approx(2, rel=1e-3)
    assert (spread.sum(0) * place**2).sum().item() / 2 == pytest.approx(1.5**2, rel=0.01)


def test_the_frechet_distance_is_scipys():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 300, 12, generator=generator, dtype=torch.float64)
    a, b = a @ torch.randn(12, 12, generator=generator).double(), 2 * b + 0.5
    b[:, 3] = b[:, 4]  # features need not be independent
    x, y = a.numpy(), b.numpy()
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T))
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected += np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a.float(), a.float()) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 3) == pytest.approx(12 * 9, rel=1e-9)  # only the mean moved


def test_precision_recall_density_and_coverage_know_what_is_near_and_print_nothing(capsys):
    real = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    assert neighbourhoods(real, real)["recall"] == 1
    assert set(neighbourhoods(real, real + 100).values()) == {0}
    narrow, wide = (neighbourhoods(real, s * real)["precision"] for s in (0.3, 3))
    assert narrow > wide
    assert capsys.readouterr().out == ""


@torch.no_grad()
def test_the_fid_is_that_of_the_layer_before_the_last(test_set):
    judge, x = Judge.from_pretrained(), test_set[0][:300]
    features = judge.features(x)
    assert torch.equal(judge.classify(features), judge(x))
    expected = frechet_distance(features, judge.features(-x))
    assert judge_images(x, reference=-x)["fid"] == pytest.approx(expected, rel=1e-5)


def test_recognised_means_more_than_nine_tenths_for_one_class(digits):
    judge = Judge()
    torch.nn.init.zeros_(judge.classify.weight)
    for share, expected in ((0.89, 0), (0.91, 1)):
        bias = torch.full((10,), (1 - share) / 9)
        bias[4] = share
        judge.classify.bias.data = bias.log()
        scores = judge_images(digits, reference=digits, judge=judge)
        assert scores["recognised"] == expected
        assert scores["classes"] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_the_nearest_neighbour_is_the_nearest(test_set):
    x, others = test_set[0][:40], test_set[0][100:700]
    brute = (x[:, None] - others[None]).square().flatten(2).mean(2).amin(1)
    raw = vae.load_digits("test").images[100:700]
    for same in (others, raw):
        assert torch.allclose(nearest_mse(x, same).float(), brute, rtol=1e-4)
    copies = judge_images(x, reference=others, neighbours=test_set[0][:50])
    assert copies["nearest"] == copies["nearest_least"] == 0


def test_a_judge_of_other_widths_and_features_of_one_image_are_refused():
    for channels in ((24, 48), (12, 48, 80)):
        with pytest.raises(ValueError, match=r"channels=.* three multiples of 8"):
            JudgeConfig(channels=channels)
    with pytest.raises(ValueError, match="features are"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
