"""What `assets/` ships: that it beats the reference, and that its numbers are its weights'."""

import json
import runpy

import autoencoder
import common
import comparisons
import generation
import likelihood
import models
import pytest
import results
import terms
import torch
from common import ROOT, Part, fingerprint, read_json
from helpers import parsed
from matplotlib.figure import Figure

import vae
from vae.machinery.notebook import REFERENCE, SHARPENED
from vae.machinery.folder import read_metrics
from vae.settings import config_differences

TOOLS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
RUNS = models.runs() | comparisons.runs() | autoencoder.runs()


@pytest.mark.parametrize("size", REFERENCE)
def test_a_shipped_model_beats_the_reference_and_has_the_numbers_it_claims(size):
    folder = ROOT / "assets" / f"latent_{size}"
    metrics = read_metrics(folder)
    config, claimed = metrics["config"], metrics["test"]
    assert (claimed["images"], claimed["latent_values"]) == (10_000, size * 49)
    assert all(config[w] > 0 for w in ("w_mse", "w_perceptual", "w_adversarial", "beta"))
    assert (folder / "model.safetensors").stat().st_size <= 6e6
    sample = claimed["sample"]
    assert models.beats_reference(size, sample)

    digits = vae.load_digits("test")  # drawn for all 10,000, or the noise is not the same
    measured = vae.evaluate(
        vae.VAE.from_pretrained(folder), digits.images, mean=False, lpips_images=0
    )
    for name in ("mse", "ssim", "psnr"):
        assert measured["sample"][name] == pytest.approx(sample[name], rel=1e-4), name
    assert measured["kl"] == pytest.approx(claimed["kl"], rel=1e-4)


@pytest.mark.parametrize("size", REFERENCE)
def test_the_discriminator_is_alive_at_the_end(size):
    last = read_metrics(ROOT / "assets" / f"latent_{size}")["history"]["train"][-1]
    assert last["discriminator"] < 1.8
    assert 0.55 <= last["accuracy_real"] <= 0.95
    assert 0.55 <= last["accuracy_fake"] <= 0.95


def test_every_command_of_the_results_is_one_that_trains():
    for name, flags in RUNS.items():
        config = parsed(flags)
        assert (config.beta > 0) == config.model.variational
        assert (config.model.latent_grid == 1) == name.startswith(
            ("global", "conditional", "plain")
        )


@pytest.mark.parametrize("size", REFERENCE)
def test_a_shipped_model_has_the_settings_of_its_command(size):
    metrics = read_metrics(ROOT / "assets" / f"latent_{size}")
    assert not config_differences(metrics["config"], parsed(RUNS[f"latent_{size}"]))
    assert "-dirty" not in metrics["environment"]["commit"]


def test_the_curve_has_every_size_and_beta_and_less_rate_is_more_distortion():
    rows = json.loads((ROOT / "assets" / "rate_distortion.json").read_text("utf-8"))
    runs = {k.partition("/")[2]: v for k, v in RUNS.items() if "rate_distortion" in k}
    assert {key: row["command"] for key, row in rows.items()} == {
        key: f"python -m vae train {flags}" for key, flags in runs.items()
    }
    for size in REFERENCE:
        tests = [row["test"] for row in rows.values() if row["latent_size"] == size]
        tests.sort(key=lambda test: test["kl"])
        assert len(tests) == 4 - (size == 4)
        psnr = [test["sample"]["psnr"] for test in tests]
        assert psnr == sorted(psnr)


def test_the_comparisons_hold_the_commands_that_made_them_and_live_discriminators():
    rows = json.loads((ROOT / "assets" / "ablation.json").read_text("utf-8"))
    assert list(rows) == list(comparisons.ABLATION)
    commands = [f"python -m vae train {flags}" for flags in RUNS.values()]
    for key, row in rows.items():
        assert row["command"] in commands, key
        assert "-dirty" not in row["commit"], key
        watched = row["discriminator"]
        assert bool(watched) == (key in ("+ adversarial", "all four")), key
        if watched:
            assert watched["discriminator"] < 1.8, key
            assert 0.55 <= watched["accuracy_real"] <= 0.95, key
            assert 0.55 <= watched["accuracy_fake"] <= 0.95, key


def test_each_term_is_measured_at_the_same_rate_and_the_adversarial_one_cures_the_blur():
    for name, flags in terms.runs().items():
        row, before = common.row(name), flags.split()[0]
        assert row["command"].startswith(f"python -m vae sharpen {flags}"), name
        assert "-dirty" not in row["commit"], name
        rate = read_metrics(ROOT / before)["test"]["kl"]
        assert row["kl"] == pytest.approx(rate, rel=1e-4), name
        if "discriminator" in row:
            assert 0.5 < row["discriminator"] < 2.1, name  # a blind one has 2
            assert 0.5 < (row["accuracy_real"] + row["accuracy_fake"]) / 2 < 0.95, name
    for size in terms.SIZES:
        curve = [common.row(terms.name_of(size, variant)) for variant in list(terms.CURVE)[1:]]
        errors = [row["sample"]["mse"] for row in curve]
        assert errors[0] == min(errors)  # less blur is more error
        assert errors[-1] == max(errors)
    for seed in terms.SEEDS:
        rows = {v: common.row(terms.name_of(terms.ABLATED, v, seed)) for v in terms.TERMS}
        fid = {v: row["reconstructions"]["fid"] for v, row in rows.items()}
        assert max(fid["+ adversarial"], fid[terms.ALL]) < 0.1 * min(
            fid[terms.BLURRED], fid[terms.PERCEPTUAL]
        )
        lpips = {v: row["sample"]["lpips"] for v, row in rows.items()}
        assert min(lpips, key=lpips.get) == terms.ALL


@pytest.mark.parametrize("name", [f"global_{size}" for size in REFERENCE])
def test_a_shipped_global_model_has_as_many_numbers_as_it_says(name):
    metrics = read_metrics(ROOT / "assets" / name)
    claimed, size = metrics["test"], int(name.partition("_")[2])
    assert not config_differences(metrics["config"], parsed(RUNS[name]))
    assert "-dirty" not in metrics["environment"]["commit"]
    assert (metrics["config"]["beta"], claimed["latent_values"]) == (1, size)
    digits = vae.load_digits("test")
    model = vae.VAE.from_pretrained(ROOT / "assets" / name)
    measured = vae.evaluate(model, digits.images, mean=False, lpips_images=0)
    assert measured["sample"]["mse"] == pytest.approx(claimed["sample"]["mse"], rel=1e-4)
    assert measured["neg_elbo"] == pytest.approx(claimed["neg_elbo"], abs=0.05)


@pytest.mark.parametrize("size", REFERENCE)
def test_a_shipped_prior_draws_the_digit_that_it_is_asked_for(size):
    folder = ROOT / "assets" / f"latent_{size}"
    model, prior = vae.VAE.from_pretrained(folder), vae.LatentPrior.from_pretrained(folder)
    assert (folder / "prior.safetensors").stat().st_size <= 4e6
    labels = torch.arange(100) % 10
    images = model.sample(100, labels, torch.Generator().manual_seed(1), prior)
    assert vae.machinery.judge_images(images, labels)["accuracy"] >= 0.95  # of 10,000: the next test


def test_the_conditional_model_draws_the_digit_that_it_is_told():
    folder = ROOT / "assets" / models.CONDITIONAL
    metrics = read_metrics(folder)
    assert not config_differences(metrics["config"], parsed(RUNS[models.CONDITIONAL]))
    assert "-dirty" not in metrics["environment"]["commit"]
    model, labels = vae.VAE.from_pretrained(folder), torch.arange(200) % 10
    images = model.sample(200, labels, torch.Generator().manual_seed(1))
    assert vae.machinery.judge_images(images, labels)["accuracy"] >= 0.94  # of 10,000: the next test


def test_what_is_generated_reaches_its_targets():
    rows = read_json(ROOT / "assets" / "generation.json")
    assert all(row["images"] == 10_000 for row in rows.values())
    noise, floor = rows["latent_4, N(0, I)"], rows["test digits"]["nearest"]
    assert rows["latent_4, prior"]["fid"] <= 0.05 * noise["fid"]
    assert rows["latent_4, prior"]["recognised"] >= 0.93
    assert rows["global_16, N(0, I)"]["recognised"] >= 0.945
    assert rows["global_16, N(0, I)"]["fid"] <= 3
    for size in REFERENCE:
        assert rows[f"latent_{size}, prior"]["accuracy"] >= 0.97
        assert rows[f"latent_{size}, prior"]["nearest"] > 0.5 * floor  # no copies
    assert rows[f"{models.CONDITIONAL}, N(0, I)"]["accuracy"] >= 0.99


REACHED = {  # digit-FID of reconstructions and of draws; share of draws recognised, and of
    # reconstructions read as the original; how many times the MSE is that of before
    "sharp_2": (10, 10, 0.945, 0.818, 1.7),
    "sharp_4": (3, 4, 0.965, 0.968, 1.7),
    "sharp_16": (0.7, 3, 0.95, 0.989, 1.4),
    "sharp_conditional_16": (0.7, 3, 0.99, 0.989, 1.4),
}


@pytest.mark.parametrize("sharp", SHARPENED)
def test_a_sharp_decoder_draws_digits_from_the_same_latents(sharp):
    rows, names = read_json(ROOT / "assets" / "generation.json"), (SHARPENED[sharp], sharp)
    real = rows["test digits"]
    of_reconstructions, of_draws, share, kept, times = REACHED[sharp]
    for source in generation.BOTH:
        before, after = (rows[f"{name}, {source}"] for name in names)
        assert after["grey"] == pytest.approx(real["grey"], rel=0.15)
        assert before["grey"] > 1.15 * real["grey"]
        for one, other in ((before, after), (before["second"], after["second"])):
            assert other["fid"] < one["fid"]
            for name in ("recall", "coverage"):
                assert other[name] > one[name] - 0.02, name
        assert after["nearest"] > 0.5 * real["nearest"]  # no copies
        assert after["nearest_least"] > 0
    before, made = (rows[f"{name}, reconstructions"] for name in names)
    assert made["fid"] <= of_reconstructions
    assert made["accuracy"] >= max(kept, before["accuracy"] - 0.006)
    assert 1 < made["mse"] / before["mse"] <= times
    drawn = rows[f"{sharp}, N(0, I)"]
    assert drawn["fid"] <= of_draws
    assert drawn["recognised"] >= share
    assert drawn.get("accuracy", 1) >= 0.99  # of a conditional model
    runs = [read_metrics(ROOT / "assets" / name)["test"] for name in names]
    assert runs[1]["kl"] == pytest.approx(runs[0]["kl"], rel=1e-4)
    weights = [vae.VAE.from_pretrained(ROOT / "assets" / name).state_dict() for name in names]
    for name, tensor in weights[0].items():
        assert name.startswith("decoder.") or torch.equal(tensor, weights[1][name]), name


def test_what_was_scored_are_the_weights_that_are_shipped():
    files = {"generation": generation.judged, "bounds": generation.weights}
    for file, weights in files.items():
        for name, row in read_json(ROOT / "assets" / f"{file}.json").items():
            assert row["weights"] == fingerprint(*weights(name)), (file, name)
    pairs = read_json(ROOT / "assets" / "autoencoder.json")
    for name, folders in autoencoder.folders().items():
        for kind, folder in zip(autoencoder.KINDS, folders, strict=True):
            if folder.is_relative_to(ROOT / "assets"):
                of = fingerprint(common.JUDGE, folder / "model.safetensors")
                assert pairs[name][kind]["weights"] == of, (name, kind)


def test_a_global_model_is_ten_times_nearer_to_digits_than_another_projects():
    theirs = read_json(ROOT / "assets" / "pythae.json")
    ours = read_metrics(ROOT / "assets" / "global_16")
    assert theirs["seconds"] >= theirs["ours"]["seconds"]  # of three passes; six took longer
    assert theirs["ours"]["fid"] * 10 <= theirs["scores"]["fid"]
    for key in ("hardware", "threads"):
        assert theirs[key] == ours["environment"][key]
    drawn = read_json(ROOT / "assets" / "generation.json")["global_16, N(0, I)"]
    assert drawn["fid"] * 10 <= theirs["scores"]["fid"]
    assert drawn["second"]["fid"] * 10 <= theirs["scores"]["second"]["fid"]


def test_the_importance_weighted_bound_is_tighter_than_the_elbo():
    rows = read_json(ROOT / "assets" / "bounds.json")
    assert list(rows) == [f"global_{size}" for size in (2, 4, 16)] + [models.CONDITIONAL]
    for name, row in rows.items():
        assert (row["samples"], row["images"]) == (500, 1000)
        assert row["neg_bound"] < row["neg_elbo_one_draw"]
        assert row["active_units"] == read_metrics(ROOT / "assets" / name)["test"]["latent_values"]


def test_a_bound_of_black_and_white_digits_lies_between_the_elbo_and_the_likelihood():
    for name in likelihood.SIZES:
        row = likelihood.numbers_of(name)
        assert row["command"] == f"python -m vae train {likelihood.runs()[name]}"
        config = parsed(likelihood.runs()[name])
        assert (config.model.likelihood, config.beta) == ("bernoulli", 1)
        assert row.get("neg_log_p", 0) < row.get("neg_bound", row["neg_elbo"]) <= row["neg_elbo"]
        if "neg_bound" in row:  # takes hours
            assert row["neg_bound"] < row["neg_elbo"], name
            assert (row["samples"], row["images"]) == (likelihood.SAMPLES, 10_000)


def test_a_plain_autoencoder_generates_worse_and_reconstructs_better_but_from_two_numbers():
    rows = read_json(ROOT / "assets" / "autoencoder.json")
    assert list(rows) == list(autoencoder.PAIRS)
    for name, pair in rows.items():
        flags = RUNS[autoencoder.run_name(name)]
        assert not config_differences(pair["plain"]["config"], parsed(flags))
        ours, others = (pair[kind]["config"] for kind in ("variational", "plain"))
        ours, others = ({"variational": True} | c | c["model"] for c in (ours, others))
        differ = {key for key in ours if ours[key] != others.get(key, ours[key])}
        coupled = ("4 on 1x1", "16 on 1x1")  # a plain one has no couplings
        shaped = {"posterior"} if name in coupled else set()
        assert differ == {"model", "beta", "variational"} | shaped, name
        better = pair["plain"]["mse"] < pair["variational"]["mse"]
        assert better == (name != "2 on 1x1"), name
        for source in ("N(0, I)", "fitted Gaussian"):
            assert pair["plain"][source]["fid"] > pair["variational"][source]["fid"], name


def test_every_part_has_a_name_of_its_own_and_all_is_there():
    parts = results.all_parts()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert set(RUNS) < set(names)
    assert [part.name for part in parts if not part.done()] == []
    for part in parts:
        assert part.command.startswith("python ")
        assert 5 < part.seconds < 7200, part.name


@pytest.mark.parametrize("file", TOOLS, ids=lambda file: file.name)
def test_every_tool_finds_what_it_takes_from_the_packages(file):
    runpy.run_path(str(file), run_name="not __main__")


def fake_parts(made: set[str]) -> list[Part]:
    def part(name: str) -> Part:
        return Part("train", name, 60, lambda: name in made, lambda: made.add(name))

    return [part(name) for name in ("one", "group/two", "group/three")]


def test_what_is_there_is_not_made_again_and_the_plan_says_how_long_the_rest_takes(
    monkeypatch, capsys
):
    made = {"group/two"}
    monkeypatch.setattr(results, "all_parts", lambda: fake_parts(made))
    monkeypatch.setattr(results, "slowness", lambda: 2.0)
    results.main(["--list"])
    assert made == {"group/two"}
    plan = capsys.readouterr().out
    assert "3 parts take about 0:06:00 here; 2 are missing: 0:04:00" in plan
    assert "python tools/results.py --only group/three" in plan
    results.main(["--only", "one"])
    assert made == {"one", "group/two"}
    results.main([])
    assert made == {"one", "group/two", "group/three"}
    assert "[3/3] group/three: 0:00:00 so far, about 0:02:00 left" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        results.main(["--only", "four"])


def test_a_row_is_out_of_date_with_other_weights_and_a_picture_with_another_row(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "ASSETS", tmp_path)
    monkeypatch.setattr(common, "RUNS", tmp_path / "runs")
    weights = tmp_path / "model.safetensors"
    row = common.measurement("table/key/inner", 1, [weights], lambda: {"value": 1})
    drawing = common.picture("drawing", [tmp_path / "table.json"], Figure)
    weights.write_bytes(b"first")
    for part in (row, drawing):
        assert not part.done()
        part.make()
        assert part.done()
    assert read_json(tmp_path / "table.json")["key"]["inner"]["value"] == 1
    weights.write_bytes(b"second")
    assert not row.done()
    row.make()
    assert not drawing.done()
    weights.unlink()
    assert not row.done()  # a shipped model is gone


def test_what_was_made_of_a_run_stays_where_the_run_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ASSETS", tmp_path)
    run = common.RUNS / "no such run" / "model.safetensors"
    row = common.measurement("table/key", 1, [run], dict)
    drawing = common.picture("drawing", [run], Figure)
    assert not row.done()
    assert not drawing.done()
    common.keep_row("table/key", {"weights": "those of the run"})
    Figure().savefig(tmp_path / "drawing.png")
    assert row.done()
    assert drawing.done()


def test_a_finished_run_becomes_a_model_or_a_row(tmp_path, monkeypatch, tiny):
    for module in (common, comparisons, models):
        monkeypatch.setattr(module, "ASSETS", tmp_path / "assets")
        monkeypatch.setattr(module, "RUNS", tmp_path)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "run", pytest.fail)  # nothing is trained twice
    (tmp_path / "assets").mkdir()
    config = tiny(max_train_images=64, lpips_images=0, w_perceptual=0.0)
    parts = {part.name: part for module in (models, comparisons) for part in module.parts()}
    for name in ("latent_2", "ablation/+ adversarial"):
        assert not parts[name].done()
        vae.train(config, tmp_path / name)
        parts[name].make()
        assert parts[name].done()
    assert vae.Run.load(tmp_path / "assets" / "latent_2").metrics["config"]["epochs"] == 1
    row = read_json(tmp_path / "assets" / "ablation.json")["+ adversarial"]
    assert row["command"] == f"python -m vae train {RUNS['ablation/+ adversarial']}"
    assert row["discriminator"]
    assert row["seen"]
