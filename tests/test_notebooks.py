"""The notebooks: made from one source, committed as they ran, and they run anywhere."""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import nbformat
import numpy as np
import pytest
import torch
from address import branch, stamped
from common import ASSETS, ROOT
from explorer_page import serve
from helpers import make, shrink
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from PIL import Image

import notebooks
import vae
from vae.machinery import notebook, shipped
from vae.machinery.folder import read_metrics
from vae.step import sharpening_step, vae_loss  # noqa: F401 - notebooks show their source

KNOBS = {  # of each story, and the most cells of code that it may have
    "latent": ("SIZE GRID BETA EPOCHS DATASET IMAGE_SIZE CONDITIONAL USE_PRETRAINED SEED", 20),
    "few": ("SIZE BETA EPOCHS DATASET IMAGE_SIZE CONDITIONAL USE_PRETRAINED SEED", 22),
    "new": ("SIZE BETA EPOCHS DATASET IMAGE_SIZE USE_PRETRAINED SEED", 18),
    "own": ("SIZE GRID BETA EPOCHS DATASET IMAGE_SIZE CONDITIONAL SEED", 18),
}
# What Google Colab's GPU image has of what we need: its published package list, August 2026.
COLAB = {
    "torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.1.3", "matplotlib": "3.10.0",
    "pillow": "11.3.0", "scikit-image": "0.25.2", "scikit-learn": "1.6.1", "tqdm": "4.67.3",
    "safetensors": "0.8.0", "huggingface_hub": "1.27.0",
}  # fmt: skip
code_cells = notebooks.code_cells
every = pytest.mark.parametrize("name", notebooks.NOTEBOOKS)


@every
def test_a_committed_notebook_is_what_the_source_gives(name):
    made, there = notebooks.generate(name), nbformat.read(notebooks.FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(there)
    assert notebooks.keep_outputs(made, there)
    assert made == there


@every
def test_a_committed_notebook_ran_from_top_to_bottom_with_the_recipe_of_the_results(name):
    path, of = notebooks.FOLDER / f"{name}.ipynb", notebooks.NOTEBOOKS[name]
    assert path.stat().st_size <= 3e6
    cells = code_cells(nbformat.read(path, 4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = {output.output_type for output in outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert {output.name for output in outputs if "name" in output} == {"stdout"}
    data = [output.get("data", {}) for output in outputs]
    markdown = [one["text/markdown"] for one in data if "text/markdown" in one]
    text = str(markdown + [output.get("text") for output in outputs])
    assert not re.search(r"/(home|root|tmp|work|usr|content)/|[A-Z]:\\\\", text)
    pictures = [base64.b64decode(one["image/png"]) for one in data if "image/png" in one]
    gifs = {"latent": 3, "few": 4, "new": 0, "own": 3}[of["story"]]
    assert sum(picture.startswith(b"GIF8") for picture in pictures) == gifs
    assert all(picture[:4] in (b"GIF8", b"\x89PNG") for picture in pictures)
    assert max(map(len, pictures)) <= 0.6e6
    known = globals() | {"nb": notebook, "model": vae.VAE()}
    shown = [found[0] for cell in cells
             if (found := re.search(r"nb\.show_source\(.+\)", cell.source))]  # fmt: skip
    for call in shown:
        code = eval(call, known).data
        assert code in markdown, f"{call} gives another text now: run the notebook again"
    assert len(shown) == {"latent": 2, "few": 1, "new": 1, "own": 0}[of["story"]]
    tables = [one for one in markdown if "| reconstruction from |" in one]
    assert len(tables) == {"latent": 1, "few": 1, "new": 0, "own": 2}[of["story"]]
    if of["story"] in ("latent", "few"):
        run = ASSETS / (f"global_{of['size']}" if of["map"] == 1 else f"latent_{of['size']}")
        sample = read_metrics(run)["test"]["sample"]
        assert f"| {sample['mse']:.5f} | {sample['ssim']:.4f} |" in tables[0]
        assert ("| the reference |" in tables[0]) == (of["story"] == "latent")


@every
def test_cells_are_thin_and_the_first_three_are_as_colab_and_papermill_need_them(name):
    of, book = notebooks.NOTEBOOKS[name], notebooks.generate(name)
    first, setup, knobs = book.cells[:3]
    address = f"{stamped()}/blob/{branch()}/notebooks/{name}.ipynb"
    assert first.source.startswith("[![Open in Colab]")
    assert f"https://colab.research.google.com/github/{address})" in first.source
    shapes = (of.get("image", "1 × 28 × 28"), "encoder", "decoder")
    assert all(shape in first.source for shape in shapes)
    edges = [line for line in first.source.splitlines() if line[:1] in "┌│└" and line]
    assert len({len(line) for line in edges}) == 1  # a picture of text, in line
    assert (setup.metadata["tags"], knobs.metadata["tags"]) == (["setup"], ["parameters"])
    assert setup.source.startswith("#@title Set up\n")
    assert setup.metadata["cellView"] == "form"
    lines, (offered, most) = knobs.source.splitlines(), KNOBS[of["story"]]
    names = " ".join(line.split(" = ")[0] for line in lines)
    assert names.replace("LATENT_", "") == offered
    assert all("  # " in line for line in lines)
    assert f"LATENT_SIZE = {of['size']} " in knobs.source
    assert f"BETA = {of['beta']} " in knobs.source
    code = [cell.source for cell in code_cells(book)]
    assert len(code) <= most
    assert max(len(cell.splitlines()) for cell in code) <= 25
    text = nbformat.writes(book)
    assert "{{" not in text
    assert set(re.findall(r"https://github\.com/([\w.-]+/[\w.-]+)", text)) == {stamped()}
    assert text.count("**Question.**") >= 2
    assert "1. **" in text
    assert "2. **" in text


def test_the_notebooks_of_one_story_differ_in_their_parameters_alone():
    books = [notebooks.generate(f"vae_latent_{size}") for size in (2, 4, 16)]
    codes = [[cell.source for cell in code_cells(book)] for book in books]
    differ = [k for k, cells in enumerate(zip(*codes, strict=True)) if len(set(cells)) > 1]
    assert differ == [1, 2]  # the cell of the knobs, and the notebook's name in that of the plan
    lines = zip(*(code[1].splitlines() for code in codes), strict=True)
    changed = [line[0].split(" = ")[0] for line in lines if len(set(line)) > 1]
    assert changed == ["LATENT_SIZE", "BETA"]


def with_knobs(name, **knobs):
    """A notebook in which a reader has changed these knobs."""
    book = notebooks.generate(name)
    for knob, value in knobs.items():
        cell = book.cells[2]
        cell.source, count = re.subn(rf"(?m)^{knob} = \S+", f"{knob} = {value!r}", cell.source)
        assert count == 1
    return book


def test_a_notebook_runs_in_an_empty_folder_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_BUDGET", "tiny")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else a busy machine is pointed out
    places = [ROOT / "tests" / "offline", ROOT, ROOT / "tests"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    book = with_knobs("few_numbers", LATENT_SIZE=3, CONDITIONAL=True, SEED=7)
    book.cells[1].source += """
import helpers, pytest
for change in (helpers.shrink, helpers.draw_nothing):  # pictures take the longest
    change(pytest.MonkeyPatch())"""
    notebooks.execute(book, tmp_path)
    outputs = [output for cell in code_cells(book) for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    shown = [one for one in outputs if one.output_type == "display_data"]
    assert len(shown) == 2  # the training, as it was last seen, and the other sizes
    assert shown[0].data["image/png"].startswith("iVBOR")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "latent_3_grid_1_conditional_epochs_1_images_64_seed_7"
    assert (folder / "sharp" / "metrics.json").is_file()
    run = vae.Run.load(folder)
    assert (run.metrics["test"]["images"], run.model.config.latent_size) == (40, 3)


def play(name, until=None, **knobs):
    """What a notebook's cells leave, called one by one, until one has this text in it."""
    space = {}
    for number, cell in enumerate(code_cells(with_knobs(name, **knobs))):
        try:
            code = TransformerManager().transform_cell(cell.source)
            exec(code.replace("steps=200", "steps=2"), space)
        except Exception as error:
            raise RuntimeError(f"{number}: {error}") from error
        if until and until in cell.source:
            break
    return space


@pytest.fixture
def desk(tmp_path, monkeypatch, unpainted):
    """A folder with data of each kind, in which a notebook's networks are small."""
    monkeypatch.setenv("VAE_BUDGET", "tiny")
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    for name, count, colours, classes in (("two", 2, (), [""]), ("grey", 24, (), ["a", "b"]),
                                          ("colour", 300, (3,), ["x", "y", "z"])):  # fmt: skip
        for k in range(count):
            path = tmp_path / name / classes[k % len(classes)] / f"{k}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(chance.integers(0, 256, (30, 30, *colours), np.uint8)).save(path)
    x = chance.integers(0, 256, (60, 28, 28), np.uint8)
    y = np.arange(60)[:, None] % 7
    np.savez(tmp_path / "file.npz", x_train=x[:40], x_test=x[40:], y_train=y[:40], y_test=y[40:])
    shrink(monkeypatch)
    monkeypatch.setattr(shipped, "SHIPPED", {
        name: replace(model, channels=(8, 16, 16)) for name, model in shipped.SHIPPED.items()
    })  # fmt: skip
    return tmp_path


OFFERED = {  # values of the knobs that people set
    "LATENT_SIZE": (2, 1, 3, 8, 64), "LATENT_GRID": (None, 1, 7, 2, "1"),
    "BETA": (0.1, 0, 1, 4, "1"), "EPOCHS": (None, 1, 0), "IMAGE_SIZE": (None, 28, 32, 64, 30),
    "CONDITIONAL": (False, True, "False"), "USE_PRETRAINED": (False, True),
    "DATASET": ("mnist", "folder:two", "folder:grey", "folder:colour", "file:file.npz", "nothing",
                "folder:nothing"),
}  # fmt: skip


def refusal(LATENT_SIZE=2, LATENT_GRID=None, BETA=0.1, EPOCHS=None, IMAGE_SIZE=None,
            CONDITIONAL=False, USE_PRETRAINED=False, DATASET="mnist"):  # fmt: skip
    """How the message begins with which these values are refused, one of them; () if they run."""
    alone = (CONDITIONAL == "False" and "CONDITIONAL='False'",
             LATENT_GRID in (2, "1") and f"latent_grid={LATENT_GRID!r}",
             IMAGE_SIZE == 30 and "image_size=30", "nothing" in DATASET and f"dataset={DATASET!r}",
             BETA == "1" and "beta='1'", EPOCHS == 0 and "epochs=0",
             LATENT_GRID == 7 and IMAGE_SIZE in (32, 64) and "latent_grid=7")  # fmt: skip
    shipped = DATASET == "mnist" and IMAGE_SIZE in (None, 28) and not CONDITIONAL
    shipped = shipped and LATENT_SIZE in (2, 4, 16)
    return tuple(filter(None, (*alone, USE_PRETRAINED and not shipped and "USE_PRETRAINED=True")))


def test_every_two_knobs_make_a_plan_or_are_refused_by_name_before_any_work(desk, monkeypatch):
    monkeypatch.setattr(notebook, "load_digits", cache(vae.load_digits))
    cells, count = code_cells(notebooks.generate("vae_latent_2"))[1:3], Counter()
    knobs, plan = (TransformerManager().transform_cell(cell.source) for cell in cells)
    for names in combinations(OFFERED, 2):
        for values in product(*(OFFERED[name] for name in names)):
            chosen, space = dict(zip(names, values, strict=True)), {"Path": Path}
            exec(knobs, space)
            told = refusal(**chosen)
            count[bool(told)] += 1
            if not told:
                exec(plan, space | chosen)
            else:
                with pytest.raises(ValueError, match="is not allowed") as refused:
                    exec(plan, space | chosen)
                assert str(refused.value).startswith(told), chosen
    assert min(count.values()) > 100
    assert not (desk / "runs").exists()


@pytest.mark.parametrize("knobs", [
    {"LATENT_SIZE": 1, "BETA": 0, "EPOCHS": 4, "DATASET": "folder:two"},
    {"LATENT_SIZE": 64, "LATENT_GRID": 1, "CONDITIONAL": True, "DATASET": "folder:colour"},
    {"LATENT_SIZE": 8, "BETA": 4, "DATASET": "file:file.npz", "IMAGE_SIZE": 32},
    {"LATENT_SIZE": 3, "LATENT_GRID": 16, "EPOCHS": 1, "DATASET": "folder:grey", "BETA": 1},
    {"LATENT_GRID": None, "IMAGE_SIZE": 32, "CONDITIONAL": True},
], ids=str)  # fmt: skip
def test_a_notebook_runs_to_its_end_with_the_knobs_that_it_offers(knobs, desk):
    space = play("vae_latent_2", **knobs)
    assert space["run"].metrics["test"]["images"] >= 1
    assert refusal(**knobs) == ()


def test_a_prior_is_trained_and_drawn_from_where_none_is_loaded(desk):
    space = play("new_digits", USE_PRETRAINED=False, LATENT_SIZE=3)
    assert space["prior"].latent_shape == (3, 7, 7)
    assert (space["run"].directory / "prior_metrics.json").is_file()


def test_a_notebook_runs_on_own_pictures_and_tells_the_model_their_classes(desk):
    knobs = {"DATASET": "folder:colour", "CONDITIONAL": True, "EPOCHS": 2}
    space = play("own_images", **knobs)
    run = vae.Run.load("runs/colour_latent_4_conditional_beta_0.3_epochs_2_images_64")
    assert run.model.config.image_shape == (3, 32, 32)
    prior = vae.LatentPrior.from_pretrained(run.directory)
    assert run.model.config.num_classes == prior.config.num_classes == 3
    plan = notebook.show_plan(space["config"], len(space["train_set"].images)).data
    scores = notebook.show_scores(run.model, space["DATASET"], prior).data
    for said in ("on 8×8, conditional, colour", "it has 1,024 pixels of three colours",
                 "2 passes over 64 training images", "knows the digits of MNIST"):  # fmt: skip
        assert said in plan + scores


def test_own_images_runs_as_it_is_on_the_emoji_that_come_with_it(desk, monkeypatch):
    space = play("own_images", "show_plan(")
    assert len(space["train_set"].images) + len(space["test_set"].images) == 725
    assert space["names"] == ["face", "flag", "person"]
    assert space["config"].model.image_shape == (3, 32, 32)
    (desk / "emoji").mkdir()  # here is one of somebody's
    assert shipped.locate("folder:emoji") == "folder:emoji"
    assert shipped.locate("folder:x") == "folder:x"


def test_the_judge_and_the_sliders_step_aside_with_a_sentence(monkeypatch):
    model = make(latent_size=3, latent_grid=1, image_size=32)
    assert "MNIST in 28 × 28 pixels alone" in notebook.show_scores(model, "mnist").data
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # a kernel without it
    assert "pip install ipywidgets" in notebook.latent_sliders(model).data


def test_a_notebook_can_start_from_the_trained_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_BUDGET", "tiny")
    monkeypatch.chdir(tmp_path)
    space = play("vae_latent_4", "run = ", USE_PRETRAINED=True)  # the cell that would train
    assert not list(tmp_path.iterdir())
    steps = read_metrics(ASSETS / "latent_4")["history"]["train"][-1]["step"]
    assert f"{steps:,} steps" in capsys.readouterr().out
    assert space["run"].directory == ASSETS / "latent_4"


STAMPED = ("stamped/address", branch())
FORK = "https://github.com/some-body/their.vae/blob/{}/notebooks/vae_latent_2.ipynb"


def setup_source():
    source = notebooks.generate("vae_latent_2").cells[1].source
    return TransformerManager().transform_cell(source)


@pytest.fixture
def in_colab(tmp_path, monkeypatch):
    """A function: what the set-up cell calls, if Colab's server gives this answer; None: none."""
    called, kind = [], (socket.AF_INET, socket.SOCK_STREAM, 0, "")  # no name is looked up
    monkeypatch.setattr(socket, "getaddrinfo", lambda *at, **_: [(*kind, (at[0], int(at[1])))])
    monkeypatch.setattr(notebook, "set_up", lambda *given: called.append([*given]))
    monkeypatch.setitem(sys.modules, "google.colab", None)
    monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "api").mkdir()

    def run(answer, address="stamped/address"):
        def note(*line):
            called.append(" ".join(line).format_map(space))

        space = {"get_ipython": lambda: SimpleNamespace(system=note, run_line_magic=note)}
        (tmp_path / "api" / "sessions").write_bytes(answer or b"")
        port = silent.getsockname()[1] if answer is None else url.split(":")[2].strip("/")
        monkeypatch.setenv("KMP_TARGET_PORT", str(port))
        called.clear()
        try:
            exec(setup_source().replace(f"github.com/{stamped()}", f"github.com/{address}"), space)
        except Exception as error:
            called.append(error._render_traceback_())
        return called

    with serve(tmp_path) as url, socket.create_server(("127.0.0.1", 0)) as silent:
        yield run


def session(path):
    return json.dumps([{"path": path, "type": "notebook"}, {"path": "another"}]).encode()


def opened_from(address):
    return session(f"fileId={quote(address, safe='')}")


@pytest.mark.parametrize(("answer", "repository", "branch"), [
    (opened_from(FORK.format("main")), "some-body/their.vae", "main"),
    (opened_from(FORK.format("a/branch-1.2")), "some-body/their.vae", "a/branch-1.2"),
    (session("fileId=" + FORK.format("main")), "some-body/their.vae", "main"),
    (opened_from(quote(FORK.format("fix-#7@2"))), "some-body/their.vae", "fix-#7@2"),
    (session("fileId=1aBcD_eFgH-iJkLmNoP"), *STAMPED),
    (opened_from("https://github.com/a/b/blob/x;rm -rf y/notebooks/n"), *STAMPED),
    (opened_from("https://github.com/a/b/blob/--upload-pack=x/notebooks/n"), *STAMPED),
    (opened_from("https://example.org/a/b/blob/main/notebooks/n"), *STAMPED),
    (b"[]", *STAMPED), (b"<html>nonsense", *STAMPED), (b"", *STAMPED), (None, *STAMPED)],
    ids=["github", "branch with a slash", "not quoted", "quoted twice", "drive", "shell", "option",
         "elsewhere", "no session", "nonsense", "nothing", "silence"],
)  # fmt: skip
def test_in_colab_the_setup_cell_finds_its_repository(answer, repository, branch, in_colab):
    clone = f"git clone -q --depth 1 -b {branch} https://github.com/{repository} vae-mnist"
    found = [repository, branch, metadata.version("torch")]
    asked = [f"GIT_TERMINAL_PROMPT=0 {clone}", "pip install --quiet ./vae-mnist", found]
    assert in_colab(answer) == asked


def test_without_an_address_the_setup_cell_says_in_one_line_what_to_edit_and_does_nothing(
    in_colab, tmp_path
):
    edit = "Edit one line of this cell, ADDRESS: your repository for OWNER/REPO, the rest as it was"
    for broken in ("OWNER/REPO", "me", "me/mine/tree/main"):
        assert in_colab(b"[]", broken) == [[edit]]
    assert in_colab(opened_from(FORK.format("main")), "OWNER/REPO")[-1][0] == "some-body/their.vae"
    (tmp_path / "vae-mnist").mkdir()
    assert "git clone" in in_colab(b"[]")[0]  # it is half a clone
    (tmp_path / "vae-mnist" / "pyproject.toml").touch()  # run again
    assert in_colab(b"[]")[0] == "pip install --quiet ./vae-mnist"


def test_outside_of_colab_the_setup_cell_takes_the_code_beside_it_or_shows_a_remedy(tmp_path):
    run = partial(subprocess.run, capture_output=True, text=True)
    (tmp_path / "cell.py").write_text(f"import sys\nsys.modules['vae'] = None\n{setup_source()}")
    said = run([sys.executable, "cell.py"], cwd=tmp_path).stderr
    assert "ModuleNotFoundError" in said
    assert f"missing? pip install git+https://github.com/{stamped()}" in said
    (tmp_path / "vae.py").write_text("x = 1")  # somebody's own
    said = run([sys.executable, "-c", setup_source()], cwd=tmp_path).stderr
    assert f"AssertionError: {tmp_path / 'vae.py'} is in the way" in said
    code = setup_source().partition("import vae;")[0] + "import vae; print(vae.__file__)"
    done = run([sys.executable, "-S", "-c", code], cwd=ROOT / "notebooks")
    assert Path(done.stdout.strip()).resolve() == ROOT / "vae" / "__init__.py"


def test_the_setup_says_in_one_line_what_was_found(monkeypatch, capsys):
    monkeypatch.setattr(notebook, "hardware", lambda device: "a T4")
    there = metadata.version("torch")
    for given, said in (
        (("a/b", "main", there), f"github.com/a/b, branch main; torch {there} as it was; a T4\n"),
        (("a/b", "main", "1.0"), f"torch {there} in place of 1.0: restart the session; a T4\n"),
        ((), f"the code beside it; torch {there} as it was; a T4\n")):  # fmt: skip
        notebook.set_up(*given)
        assert capsys.readouterr().out.endswith(said)
    monkeypatch.setattr(notebook, "NEEDED", "torch nothing_like_it")
    with pytest.raises(ModuleNotFoundError, match="missing here: nothing_like_it "):
        notebook.set_up()


def test_in_colab_only_the_weights_of_lpips_are_installed():
    lines = (ROOT / "requirements.txt").read_text("utf-8").split()
    needed = {r.name: r.specifier for r in map(Requirement, lines)}
    assert needed.keys() - COLAB.keys() == {"stlpips_pytorch", "filelock"}  # torch needs the latter
    assert [name for name, version in COLAB.items() if version not in needed[name]] == []


def test_only_shipped_models_are_loaded_and_without_them_there_is_a_sentence(tmp_path, monkeypatch):
    for options in ({"latent_size": 3}, {"blocks": 2}, {"num_classes": 10}):
        with pytest.raises(ValueError, match="USE_PRETRAINED=True is not allowed"):
            shipped.load_pretrained(vae.TrainConfig(vae.VAEConfig(**options)))
    for name, model in shipped.SHIPPED.items():
        assert vae.VAE.from_pretrained(ASSETS / name).config == model
        sharp = shipped.load_pretrained(vae.TrainConfig(model), sharpened=True)
        assert (sharp is None) != (name in shipped.SHARPENED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "ROOTS", (".", tmp_path / "site-packages"))
    with pytest.raises(ValueError, match="needs assets/latent_2"):
        shipped.load_pretrained(vae.TrainConfig())
    run = SimpleNamespace(model=make(), metrics={"config": {"dataset": "mnist"}})
    assert "stand there" in notebook.show_beside(run, vae.load_digits("test")).data


@pytest.mark.parametrize("classes", [0, 10])
def test_a_slider_redraws_the_digit(classes):
    model = make(latent_size=9, latent_grid=1, num_classes=classes).eval()
    picture, *columns = notebook.latent_sliders(model).children
    sliders = [slider for column in columns for slider in column.children]
    assert len(sliders) == 9 + bool(classes)
    for slider in sliders:
        before = picture.value
        slider.value = 2
        assert picture.value != before, slider.description
    z = torch.full((1, 9, 1, 1), 2.0)
    with torch.no_grad():
        image = model.decode(z, torch.tensor([2]) if classes else None)[0, 0]
    drawn = np.asarray(Image.open(io.BytesIO(picture.value)).resize((28, 28), Image.Resampling.BOX))
    assert np.corrcoef(drawn.ravel(), image.numpy().ravel())[0, 1] > 0.95


def test_the_judge_scores_draws_of_each_source():
    model, prior = make(latent_size=4), vae.LatentPrior(vae.PriorConfig(steps=1)).eval()
    assert [row[0] for row in rows(notebook.show_scores(model, "mnist"))] == ["N(0, I)"]
    table = rows(notebook.show_scores(model, "mnist", prior, n=20))
    assert [row[0] for row in table] == ["N(0, I)", "the learned prior"]
    assert [bool(row[2]) for row in table] == [False, True]  # asked for, or not
    assert "of MNIST" in notebook.show_scores(model, "kmnist", prior).data
    assert "can be asked for" in notebook.show_digits(model, "name", None).data


def test_the_plan_says_when_the_budget_is_the_quick_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    plans = {name: vae.with_budget(vae.TrainConfig(), name) for name in ("auto", "full", "tiny")}
    shown = {name: notebook.show_plan(plan, 60_000).data for name, plan in plans.items()}
    said = {name: "quick budget" in text for name, text in shown.items()}
    assert said == {"auto": True, "full": False, "tiny": False}
    assert "3 passes over 60,000 training images, on the CPU |" in shown["full"]
    assert "1 pass over 320 training images, on the CPU |" in shown["tiny"]


def rows(table):
    """The cells of a Markdown table's rows."""
    lines = [line for line in table.data.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


@pytest.mark.parametrize(("name", "dataset", "known"), [
    ("latent_2", "mnist", True), ("latent_2", "kmnist", False),
    ("global_2", "mnist", False)])  # fmt: skip
def test_the_reference_stands_below_what_it_can_be_compared_with(name, dataset, known):
    run = vae.Run.load(ASSETS / name)
    run.metrics["config"]["dataset"] = dataset
    names = [row[0] for row in rows(notebook.show_results(run))]
    assert names == ["z ~ q(z\\|x)", "the mean of q(z\\|x)", *["the reference"] * known]


def test_tables_hold_every_part_and_escape_what_they_are_given():
    model = vae.VAE(vae.VAEConfig(num_classes=10, latent_grid=1))
    table = notebook.show_parts(model)
    embedding = model.class_embedding.weight.numel() + model.decoder.position.numel()
    counted = sum(int(row[3].replace(",", "")) for row in rows(table))
    assert counted + embedding == sum(p.numel() for p in model.parameters())
    assert ("decoder.conv_out", "Conv2d", "1 × 28 × 28", "145") in rows(table)
    risky = notebook.table(("a", "b"), [("p(x|z)", 1)], "x & y")
    assert risky.data == "| a | b |\n| --- | --- |\n| p(x\\|z) | 1 |\n\nx & y"
