"""Other projects' VAEs beside ours: what is asked of them, how they are measured, the table."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import common
import numpy as np
import peer_worker
import peers
import pytest
import readme
import torch
from common import ROOT
from helpers import parsed

import vae
from vae import losses
from vae.machinery.machine import hardware
from vae.posterior import DiagonalGaussian

SCORES = {"fid": 12.34, "recognised": 0.5, "second": {"fid": 0.56, "recognised": 0.5}}


def row(**changed):
    """As it stands in the file."""
    made = {
        "parameters": 577_925, "images": 24_000, "seconds": 160.0, "mse": 0.00412, "ssim": 0.98,
        "psnr": 30.5, "kl": 371.2, "draws": SCORES,
        "hardware": hardware(torch.device("cpu")),
    }  # fmt: skip
    return made | changed


def test_the_peers_kl_is_ours_and_one_has_our_losss_value_and_gradient(digits):
    mean, logvar = torch.randn(2, 5, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    kl = peer_worker.gaussian_kl(mean, logvar)
    torch.testing.assert_close(kl, DiagonalGaussian(mean, logvar).kl())

    def ours(x, y, kl):
        return (losses.calibrated_nll((x - y).square().mean()) + 0.1 * kl.mean()) / 784

    given = digits, 0.9 * digits, torch.full((len(digits),), 300.0)
    both = peer_worker.calibrated_loss, ours
    torch.testing.assert_close(*(torch.func.grad_and_value(loss, 1)(*given) for loss in both))
    flags = parsed(peers.training_of("ours_2_on_7x7").partition(" train ")[2])
    assert (flags.beta, flags.w_perceptual, flags.w_adversarial) == (peer_worker.BETA, 0, 0)


@pytest.mark.parametrize("black", [0, -1])
def test_images_of_either_range_become_ours_and_none_leaves_it(black):
    images = vae.load_digits("test").images[:20]
    peer = peer_worker.Peer(*[None] * 5, 1, (1,), black)
    given = peer_worker.in_range_of(peer, images)
    assert (given.min(), given.max()) == (black, 1)
    ours = vae.scale_images(images)
    torch.testing.assert_close(peers.as_ours(given, black), ours, rtol=0, atol=1e-6)
    beyond = peers.as_ours(3 * given, black)
    assert (beyond.min(), beyond.max()) == (-1, 1)


def test_the_worker_of_pytorchs_example_learns_and_knows_nothing_of_ours(tmp_path):
    for split, count in (("train", 2000), ("test", 50)):
        np.save(tmp_path / f"{split}.npy", vae.load_digits(split).images[:count].numpy())
    given = ["pytorch_example", tmp_path, tmp_path, "inf", "--images", "20000"]
    command = [sys.executable, "-I", peers.WORKER, *given]
    subprocess.run([str(part) for part in command], check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    x = vae.scale_images(vae.load_digits("test").images[:50])
    y, drawn = (
        peers.as_ours(torch.from_numpy(np.load(tmp_path / f"{kind}.npy")), report["black"])
        for kind in ("reconstructions", "draws")
    )
    assert drawn.shape == y.shape == x.shape
    assert vae.mse(x, y).mean() < 0.7 * vae.mse(x, torch.full_like(x, -1)).mean()
    assert 20_000 <= report["images"] < 20_128
    assert report["seconds"] > 0
    assert report["kl"] > 0.1
    assert report["parameters"] == 784 * 400 + 400 + 400 * 40 + 40 + 20 * 400 + 400 + 401 * 784


def test_every_row_has_a_peer_or_a_training_and_a_command_of_its_own():
    others = {name: row for name, row in peers.ROWS.items() if row.like}
    assert set(others) == set(peer_worker.PEERS)
    for name, one in peers.ROWS.items():
        if one.like:
            assert peers.ROWS[one.like].latent == one.latent
            continue
        config = parsed(peers.training_of(name).partition(" train ")[2])
        model = config.model.fitted(1, 28)
        size, grid = model.latent_size, model.latent_grid
        assert one.latent == f"{size} on {grid}×{grid}"
        assert (config.epochs, config.max_train_images) == (1, 24_000)
        assert config.mixed_precision == "no"
    commands = [part.command for part in peers.parts()]
    assert len(set(commands)) == len(peers.ROWS) + 1


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The file of the rows, which is not there yet."""
    monkeypatch.setattr(common, "ASSETS", tmp_path)
    return tmp_path / "peers.json"


def test_rows_are_made_in_order_and_again_if_ours_is_another(rows, monkeypatch):
    trained, like, name = [], "ours_16_on_1x1", "pythae"

    def train(name, *given):
        trained.append((name, *given))
        return None, None, row(given_seconds=160.0, seconds=160.2) if given else row()

    monkeypatch.setattr(peers, "ours", train)
    monkeypatch.setattr(peers, "peer", train)
    monkeypatch.setattr(peers, "measured", lambda *images: {"draws": SCORES})
    both = [(like,), (name, 160.0)]
    common.keep_row(f"peers/{name}", row(given_seconds=160.0))  # of another training of ours
    peers.main(["--only", name])  # after ours, with which it is compared
    assert trained == both
    peers.main(["--only", name, like])
    assert trained == both
    made = common.read_json(rows)
    assert list(made) == [name, like]
    assert made[name]["command"] == "python tools/peers.py --only pythae"
    common.keep_row(f"peers/{like}", row(seconds=170.0))  # trained again
    peers.main(["--only", name, like])
    assert trained == [*both, (name, 170.0)]


def test_what_cannot_be_compared_or_is_not_allowed_is_said(rows, capsys):
    common.keep_row("peers/ours_16_on_1x1", row(hardware="an abacus"))
    with pytest.raises(SystemExit, match="was trained on an abacus"):
        peers.main(["--only", "pythae"])
    for given in (["--only", "nobody"], ["--shippd"]):
        with pytest.raises(SystemExit):
            peers.main(given)
        assert "usage" in capsys.readouterr().err


def test_the_learning_rate_of_lowest_loss_is_kept_and_none_is_an_error(tmp_path, monkeypatch):
    found = {"0.0003": 2.0, "0.001": 1.0, "0.003": math.nan}

    def work(command, threads, python):
        folder = Path(shlex.split(command)[5])
        for kind in ("reconstructions", "draws"):
            np.save(folder / f"{kind}.npy", np.zeros((4, 1, 28, 28), np.float32))
        report = {"loss": found[folder.name], "black": 0, "learning_rate": float(folder.name)}
        (folder / "report.json").write_text(json.dumps(report))

    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "python_of_peers", lambda: "python")
    monkeypatch.setattr(peers, "train", work)
    made, drawn, report = peers.peer("diffusers_calibrated", 5.0)
    assert (made == -1).all()
    assert (drawn == -1).all()
    assert report["learning_rate"] == 1e-3
    assert report["searched"] == {"0.0003": 2.0, "0.001": 1.0}
    assert report["given_seconds"] == 5.0
    found |= dict.fromkeys(found, math.nan)
    with pytest.raises(SystemExit, match="diverged at every learning rate"):
        peers.peer("diffusers_calibrated", 5.0)


def test_the_table_has_a_line_for_each_row_that_is_there(monkeypatch):
    made = {"pythae": row(), "ours_2_on_7x7": row()}
    monkeypatch.setattr(readme, "read_json", lambda path: made)
    lines = common.table("peers", readme.peers()).splitlines()
    assert len(lines) == 4
    ours = "| 2 on 7×7: this repository, MSE + KL | 30.5 | 371 | 50.0% | 0.58 million | 24,000 |"
    assert lines[2] == ours
    made["pythae"]["draws"] = SCORES | {"recognised": 0.54}
    assert common.table("peers", readme.peers()).count("| 54.0%&nbsp;† |") == 1


def test_the_shipped_rows_had_one_machine_and_the_same_seconds_and_ours_draws_far_better():
    rows = common.read_json(ROOT / "assets" / "peers.json")
    assert list(rows) == list(peers.ROWS)
    for key in ("hardware", "threads"):
        assert len({made[key] for made in rows.values()}) == 1
    assert len({made["versions"]["torch"] for made in rows.values()}) == 1
    for name, made in rows.items():
        assert "-dirty" not in made["commit"], name
        assert made["draws"]["images"] == 10_000
        if like := peers.ROWS[name].like:
            assert 1 <= made["seconds"] / rows[like]["seconds"] < 1.02, name
    numbers = [rows[name]["parameters"] for name in ("ours_2_on_7x7", "diffusers_calibrated")]
    assert max(numbers) < 1.1 * min(numbers)
    ours, theirs = (rows[name]["draws"] for name in ("ours_16_on_1x1", "pythae"))
    assert ours["fid"] * 10 <= theirs["fid"]
    assert ours["second"]["fid"] * 10 <= theirs["second"]["fid"]
