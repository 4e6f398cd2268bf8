"""How the package is built: what a file may import, and how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vae

ROOT = Path(vae.__file__).parents[1]
PACKAGES = ("vae", "vae.machinery", "vae.machinery")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
TEXTS = {
    path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text("utf-8") for path in FILES
}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
METHOD = [
    "checks",
    "data",
    "blocks",
    "couplings",
    "posterior",
    "model",
    "discriminator",
    "perceptual",
    "losses",
]
METHOD = [f"vae/{name}" for name in (*METHOD, "prior", "metrics")]
LIGHT = """
import sys, vae
assert "torch" not in sys.modules
assert set(vae.__all__) <= set(dir(vae))
model = vae.VAE.from_pretrained(sys.argv[1])
images = vae.load_digits("test").images[:20]
vae.evaluate(model, images, lpips_images=4)
model.sample(1)
heavy = "matplotlib accelerate skimage sklearn imageio PIL IPython scipy torchvision".split()
heavy += ["huggingface_hub"]
assert not (found := [name for name in heavy if name in sys.modules]), found
"""


def test_a_model_is_loaded_and_measured_without_the_libraries_of_pictures_and_training():
    shipped = ROOT / "assets" / "latent_2"
    subprocess.run([sys.executable, "-c", LIGHT, shipped], check=True, cwd=ROOT)


def test_every_public_name_is_there_and_nothing_else_is():
    for name in vae.__all__:
        assert getattr(vae, name) is not None
    assert vae.figures.plot_samples  # where notebooks of before look
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vae.nothing  # noqa: B018


def imports(name: str) -> set[str]:
    """The project's own modules that a module imports, as paths."""
    folder, found = Path(name).parent, set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            base = [Path(), folder, *folder.parents][node.level]
            base /= (node.module or "").replace(".", "/")
            inside = [base / alias.name for alias in node.names]
            found |= {path.as_posix() for path in [base, *inside]}
    return {one for one in found if one in TREES}


def test_arrows_go_one_way():
    used = {name: imports(name) for name in TREES}
    for name in METHOD:
        wings = {one for one in used[name] if one.count("/") > 1 or not one.startswith("vae/")}
        assert all(one.startswith("vae.machinery/") for one in wings), (name, wings)
    for name in (name for name in TREES if name.startswith("vae.machinery/")):
        assert all(one.startswith("vae.machinery/") for one in used[name]), name
    done: set[str] = set()
    while todo := {name for name in used if name not in done}:
        free = {name for name in todo if not used[name] & todo}
        assert free, f"a circle among {sorted(todo)}"
        done |= free


def test_the_step_knows_neither_files_nor_processes():
    used = imports("vae/training/step")
    assert not {one for one in used if one.startswith(("vae.machinery", "vae.machinery"))}
    names = {alias.name for node in ast.walk(TREES["vae/training/step"])
             if isinstance(node, ast.Import) for alias in node.names}  # fmt: skip
    assert names == {"torch", "torch.nn.functional"}


def test_nothing_is_too_long_to_be_read():
    lines = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    assert max(lines.values()) <= 300
    assert sum(lines[name] for name in METHOD) <= 1600
    assert sum(n for name, n in lines.items() if name.startswith("vae/")) < 4000
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                most = 60 if isinstance(node, ast.FunctionDef) else 150
                assert node.end_lineno - node.lineno < most, (name, node.name)
