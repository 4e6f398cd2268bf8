"""Models that come from the Hugging Face hub and go there; a server here stands in for it."""

import re
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import torch
from common import ASSETS, ROOT
from helpers import SMALL, make, same
from hub_server import TOKEN, Hub
from huggingface_hub import constants, file_download

import vae
from vae import pretrained
from vae.machinery.run import card

NAME = "owner/name"
VAE_FILES = {"config.json", "model.safetensors"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, which the client takes for the hub, with a cache of the test's own."""
    stand_in, cache = Hub(), tmp_path / "cache"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, stand_in.url)
    settings = {
        "ENDPOINT": stand_in.url, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"), "HF_STORED_TOKENS_PATH": str(cache / "tokens"),
        "HF_HUB_DISABLE_XET": True,  # which would write logs beside the user's cache
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    for module in (constants, file_download):  # before version 1 the latter has its own
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    kind = socket.AF_INET, socket.SOCK_STREAM, 0, ""  # no name is looked up
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [(*kind, (host, port))])
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield stand_in
    stand_in.close()


def test_what_is_pushed_comes_back_the_same(hub):
    hub.create(NAME)
    hub.files[NAME]["notes.md"] = b"mine"
    model = make(latent_size=4).eval()
    prior = vae.LatentPrior(vae.PriorConfig(4, channels=16, blocks=1, steps=2)).eval()
    prior.conv_out.weight.data.normal_(std=0.1)
    urls = model.push_to_hub(NAME), prior.push_to_hub(NAME)
    assert hub.commits[NAME] == ["Upload a VAE", "Upload a LatentPrior"]
    assert urls[1] == f"{hub.url}/{NAME}/commit/{hub.sha(NAME)}"
    prior_files = {"prior.json", "prior.safetensors"}
    assert hub.files[NAME].keys() == {".gitattributes", "notes.md", *VAE_FILES, *prior_files}
    back, prior_back = vae.VAE.from_pretrained(NAME), vae.LatentPrior.from_pretrained(NAME)
    assert (back.config, prior_back.config) == (model.config, prior.config)
    assert same(back, model)
    assert same(prior_back, prior)
    drawn = [one.sample(3, [1, 2, 3], torch.Generator().manual_seed(0), given)
             for one, given in ((model, prior), (back, prior_back))]  # fmt: skip
    assert torch.equal(*drawn)
    fetched = {line.rsplit("/", 1)[1] for line in hub.asked if line.startswith("GET /owner")}
    assert fetched == {*VAE_FILES, *prior_files}
    assert same(vae.VAE.from_pretrained(NAME, revision=hub.sha(NAME)), model)
    prior.push_to_hub("owner/hidden", private=True)
    assert hub.private == {"owner/hidden"}
    hub.close()
    assert same(vae.VAE.from_pretrained(NAME), model)  # of the cache
    with pytest.raises(vae.FileError, match="Connection refused"):
        vae.VAE.from_pretrained(NAME, revision="v9")


@pytest.mark.parametrize(("file", "change", "said"), [
    ("model.safetensors", lambda content: content[:-20] + b"!" + content[-19:], "not as it was"),
    ("model.safetensors", lambda content: content[:-10], "cannot be read, is it whole"),
    ("model.safetensors", lambda content: b"0" * 500_000, "at most 400,000 are expected"),
    ("model.safetensors", None, "does not exist"), ("config.json", None, "does not exist"),
    ("config.json", lambda content: b"{", "is not a VAE's config")])  # fmt: skip
def test_a_damaged_repository_is_refused_by_name(file, change, said, hub, monkeypatch):
    monkeypatch.setattr(pretrained, "LARGEST", 400_000)
    make().push_to_hub(NAME)
    files = hub.files[NAME]
    content = files.pop(file)
    files |= {file: change(content)} if change else {}
    with pytest.raises(vae.FileError, match=rf"{NAME} on the .*{file} .*{said}"):
        vae.VAE.from_pretrained(NAME)


@pytest.mark.parametrize(("prepare", "reason"), [
    (lambda hub: hub.files.clear(), "RepositoryNotFoundError: 404"),
    (lambda hub: hub.commits[NAME].clear(), "RevisionNotFoundError: 404"),
    (lambda hub: hub.gated.add(NAME), "GatedRepoError: 403"),
    (lambda hub: setattr(constants, "HF_HUB_OFFLINE", True), "HF_HUB_OFFLINE")])  # fmt: skip
def test_what_the_hub_does_not_give_is_a_file_error(prepare, reason, hub):
    make().push_to_hub(NAME)
    revision = hub.sha(NAME)
    prepare(hub)
    said = rf"^there is no folder owner/name, and on the hub: [^\n]*{reason}[^\n]*$"
    with pytest.raises(vae.FileError, match=said):
        vae.VAE.from_pretrained(NAME, revision)


def test_a_folder_wins_and_what_can_be_no_repository_is_a_path(hub):
    make().push_to_hub(NAME)
    there = make(latent_size=4)
    there.save_pretrained(NAME)
    hub.asked.clear()
    assert same(vae.VAE.from_pretrained(NAME), there)
    with pytest.raises(ValueError, match="revision='main' is not allowed: directory='owner/name'"):
        vae.VAE.from_pretrained(NAME, revision="main")
    shutil.rmtree("owner")
    paths = "./name", "~/name", "owner/name/", "a/b/c", "owner/my model", f"{Path.cwd()}/owner/name"
    for path in (*paths, Path(NAME)):
        with pytest.raises(vae.FileError, match=r"config\.json does not exist; the config of"):
            vae.VAE.from_pretrained(path)
    assert not hub.asked
    assert vae.VAE.from_pretrained(NAME).config.latent_size == 2


def test_a_push_that_fails_says_why(hub, monkeypatch):
    for name in ("name", "a/b/c", "a b/c", "", None, Path(NAME)):
        with pytest.raises(ValueError, match=r"repo_id=.* is not allowed: 'owner/name' is"):
            make().push_to_hub(name)
    said = r"repo_id='owner/name': .* did not take the files: .*Invalid username or password"
    with pytest.raises(OSError, match=said):
        make().push_to_hub(NAME, token="hf_wrong")
    hub.close()
    with pytest.raises(OSError, match=r"did not take the files: Connect\w*Error: .*refused"):
        make().push_to_hub(NAME)


def test_a_run_is_pushed_with_its_card_as_the_page_says(hub):
    shutil.copytree(ASSETS / "latent_4", "runs/latent_4")
    hub.create(NAME)
    hub.files[NAME] |= {"manifold.png": b"of another run", "notes.md": b"mine"}
    page = (ROOT / "docs" / "how-to.md").read_text("utf-8")
    code = re.search(r"## Keep a model on the Hugging Face hub\n.*?```py\n(.*?)```", page, re.S)[1]
    space = {}
    exec(code, space)
    assert space["images"].shape[0] == 16
    run = vae.Run.load(ASSETS / "latent_4")
    assert same(space["model"], run.model)
    kept = {path.name for path in run.directory.iterdir()} - {"frames.npz"}
    assert hub.files[NAME].keys() == kept | {".gitattributes", "notes.md", "README.md"}
    assert hub.commits[NAME] == ["Upload a run"]
    for name in ("metrics.json", "latent.gif"):
        assert hub.files[NAME][name] == (run.directory / name).read_bytes()
    assert hub.files[NAME]["README.md"].decode() == card(run, NAME)
    with pytest.raises(ValueError, match=r"repo_id=None is not allowed"):
        run.push_to_hub(None)
    del run.metrics["test"]
    with pytest.raises(vae.FileError, match="latent_4 is not a finished run"):
        run.push_to_hub(NAME)


@pytest.mark.parametrize("name", ["latent_4", "sharp_conditional_16"])
def test_a_card_has_the_numbers_of_its_run_and_code_that_runs(name, hub):
    run = vae.Run.load(ASSETS / name)
    run.model.push_to_hub(NAME)
    text, test = card(run, NAME), run.metrics["test"]
    assert huggingface_hub.ModelCard(text).data.license == "mit"
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], space := {})
    assert space["images"].shape == (16, 1, 28, 28)
    for row, measured in (("z ~ q", test["sample"]), ("the mean", test["mean"])):
        shown = re.search(rf"^\| {row}.*?\|(?:x\) \|)?((?: [\d.]+ \|){{4}})$", text, re.M)[1]
        expected = [measured[metric] for metric in ("mse", "ssim", "psnr")] + [test["kl"]]
        assert [float(cell) for cell in shown[:-1].split("|")] == pytest.approx(expected, rel=0.01)
    assert f"10,000 test images in [-1, 1], {test['latent_values']} latent values each" in text


def test_a_card_tells_of_a_plain_autoencoder_on_other_data(tmp_path):
    model = vae.VAE(vae.VAEConfig(3, channels=SMALL, variational=False, num_classes=10))
    row = {"mse": 0.5, "ssim": 0.25, "psnr": 9}
    test = {"sample": row, "mean": row, "images": 7, "latent_values": 147}
    run = vae.Run(tmp_path, model, {"config": {"dataset": "kmnist"}, "test": test}, None)
    text = card(run, NAME)
    assert "# Autoencoder, latent size 3 on 7×7, conditional, plain, kmnist" in text
    assert "| the mean | 0.50000 | 0.2500 | 9.00 | – |" in text
    assert "labels=0)" in text
