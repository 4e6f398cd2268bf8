"""Models that come from the Hugging Face hub and go there; a server here stands in for it."""

import json
import re
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import torch
from common import ASSETS, ROOT
from helpers import make
from hub_server import TOKEN, Hub
from huggingface_hub import constants, file_download

import vae
from vae.machinery import hub as ours
from vae.machinery.folder import read_metrics
from vae.machinery.run import model_card
from vae.prior import PriorConfig

NAME = "owner/name"
VAE_FILES = {"config.json", "model.safetensors"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """In place of that of all tests: connections to this machine are allowed."""
    look_up = socket.getaddrinfo

    def locally(host, *args, **kwargs):
        if host != "127.0.0.1":
            raise OSError("the tests have no network")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", locally)


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
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield stand_in
    stand_in.close()


def small_prior() -> vae.LatentPrior:
    prior = vae.LatentPrior(PriorConfig(4, channels=16, blocks=1, steps=2)).eval()
    prior.conv_out.weight.data.normal_(std=0.1)
    return prior


def same(model, other) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[k]) for k, t in ours.items())


def test_what_is_pushed_comes_back_the_same(hub):
    hub.create(NAME)
    hub.files[NAME]["notes.md"] = b"mine"
    model, prior = make(latent_size=4).eval(), small_prior()
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
    with pytest.raises(vae.FileError, match="and the hub's cache has no copy"):
        vae.VAE.from_pretrained(NAME, revision="v9")


def altered(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 64]) + content[-19:]


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [("model.safetensors", altered, "not as it was written"),
     ("model.safetensors", lambda content: content[:-10], "cannot be read, is it whole"),
     ("model.safetensors", None, "has no model.safetensors"),
     ("config.json", lambda content: b"{", "is not a VAE's config"),
     ("config.json", None, "has no config.json")],
)  # fmt: skip
def test_a_damaged_repository_is_refused_by_name(file, change, said, hub):
    make().push_to_hub(NAME)
    files = hub.files[NAME]
    content = files.pop(file)
    files |= {file: change(content)} if change else {}
    with pytest.raises(vae.FileError, match=said) as caught:
        vae.VAE.from_pretrained(NAME)
    assert NAME in str(caught.value)
    assert file in str(caught.value)


def test_a_file_that_is_too_large_is_not_downloaded(hub, monkeypatch):
    make().push_to_hub(NAME)
    monkeypatch.setattr(ours, "LARGEST", 1000)
    said = r"model\.safetensors of .* owner/name .* at most 1,000"
    with pytest.raises(vae.FileError, match=said):
        vae.VAE.from_pretrained(NAME)
    assert not [line for line in hub.asked if "resolve" in line]


def nothing(hub, monkeypatch):
    pass


def another_revision(hub, monkeypatch):
    hub.create(NAME)
    hub.files[NAME] |= dict.fromkeys(VAE_FILES, b"")


def gate(hub, monkeypatch):
    hub.create(NAME)
    hub.gated.add(NAME)


def close(hub, monkeypatch):
    hub.close()


def go_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [(nothing, "there is none of that name, or it is private"),
     (another_revision, "it has no such revision"), (gate, "its owner has to grant access first"),
     (close, r"Connect\w*Error: .*refused.*, and the hub's cache has no copy"),
     (go_offline, r"OfflineModeIsEnabled: .*, and the hub's cache has no copy")],
)  # fmt: skip
def test_what_the_hub_does_not_give_is_a_file_error(prepare, reason, hub, monkeypatch):
    prepare(hub, monkeypatch)
    with pytest.raises(vae.FileError, match=reason) as caught:
        vae.VAE.from_pretrained(NAME, "v9" if prepare is another_revision else None)
    said = str(caught.value)
    assert "there is no folder owner/name, and config.json and model.safetensors cannot" in said
    assert "\n" not in said


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
    assert json.loads(hub.files[NAME]["metrics.json"]) == run.metrics
    picture = (ASSETS / "latent_4" / "latent.gif").read_bytes()
    assert hub.files[NAME]["latent.gif"] == picture
    card = hub.files[NAME]["README.md"].decode()
    pictures = {name for name in kept if name.endswith((".gif", ".png"))}
    assert set(re.findall(r"\]\((\w+\.\w+)\)", card)) == pictures
    with pytest.raises(ValueError, match=r"repo_id=None is not allowed"):
        run.push_to_hub(None)
    del run.metrics["test"]
    with pytest.raises(vae.FileError, match="latent_4 is not a finished run"):
        run.push_to_hub(NAME)


@pytest.mark.parametrize("name", ["latent_4", "sharp_conditional_16"])
def test_a_card_has_the_numbers_of_its_run(name):
    metrics = read_metrics(ASSETS / name)
    test, settings = metrics["test"], metrics["config"]
    text = model_card(metrics, NAME, ["samples.png"], prior=name == "latent_4")
    card = huggingface_hub.ModelCard(text)
    assert (card.data.license, card.data.datasets) == ("mit", ["ylecun/mnist"])
    assert {one.metric_type: one.metric_value for one in card.data.eval_results} == test["sample"]
    sample, mean = (re.findall(r"[-\d.]+", row.split("|x) |")[1]) for row in rows(text, "q(z"))
    expected = [*test["sample"].values(), test["kl"], test["neg_elbo"]]
    assert [float(cell) for cell in sample] == pytest.approx(expected, rel=0.02)
    assert [float(cell) for cell in mean] == pytest.approx(list(test["mean"].values()), rel=0.02)
    shown = metrics["environment"]["commit"], metrics["environment"]["hardware"]
    steps = metrics["history"]["train"][-1]["step"]
    for value in (*shown, steps, settings["beta"], round(metrics["seconds"]["training"] / 60, 1)):
        assert f"| {value} |" in text
    batch = {"latent_4": 32, "sharp_conditional_16": 64}[name]  # of the training that was last
    assert f"| images a step | {batch} |" in text
    assert f"An image becomes {test['latent_values']} numbers" in card.content


def rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and start in line]


def test_a_card_tells_of_a_plain_autoencoder_that_was_measured_without_lpips():
    metrics = read_metrics(ASSETS / "conditional_16")
    metrics["config"]["model"] |= {"variational": False}
    metrics["config"] |= {"dataset": "kmnist"}
    metrics["test"] = {"sample": {"mse": 0.5, "ssim": 0.25}, "images": 7, "lpips_images": 0}
    del metrics["environment"], metrics["seconds"]
    text = model_card(metrics, NAME)
    assert "# Conditional autoencoder, latent size 16 on 1×1, kmnist" in text
    assert rows(text, "encoder") == ["| the encoder's z | 0.50000 | 0.2500 |"]
    assert "model.decode(model.encode(images, labels).mode(), labels)" in text
    for absent in ("LPIPS", "KL,", "ELBO", "ylecun", "minutes", "model.sample", "ariational"):
        assert absent not in text
