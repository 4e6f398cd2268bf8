"""How the package is built: what a file may import, and how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vae

PACKAGE = Path(vae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TEXTS = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in FILES}
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
METHOD += ["prior", "metrics"]
LIGHT = """
import sys, vae
assert "torch" not in sys.modules
assert set(vae.__all__) <= set(dir(vae))
model = vae.VAE.from_pretrained(sys.argv[1])
images = vae.load_digits("test").images[:20]
vae.evaluate(model, images, lpips_images=4)
model.sample(1)
heavy = "matplotlib accelerate skimage sklearn imageio PIL IPython scipy torchvision".split()
assert not (found := [name for name in heavy if name in sys.modules]), found
"""


def test_a_model_is_loaded_and_measured_without_the_libraries_of_pictures_and_training():
    shipped = PACKAGE.parent / "assets" / "latent_2"
    subprocess.run([sys.executable, "-c", LIGHT, shipped], check=True, cwd=PACKAGE.parent)


def test_every_public_name_is_there_and_nothing_else_is():
    for name in vae.__all__:
        assert getattr(vae, name) is not None
    assert vae.figures.plot_samples  # where notebooks of before look
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vae.nothing  # noqa: B018


def imports(name: str) -> set[str]:
    """The package's own modules that a file imports, as paths without their ending."""
    folder, found = Path(name).parent, set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [folder, *folder.parents][node.level - 1] / (node.module or "").replace(".", "/")
            inside = [base / alias.name for alias in node.names]
            found |= {path.as_posix() for path in [base, *inside]}
    return {one for one in found if f"{one}.py" in TREES or f"{one}/__init__.py" in TREES} - {"."}


def test_arrows_go_one_way():
    wing = {name.removesuffix(".py"): imports(name) for name in TREES}
    for name, used in wing.items():
        folder = name.split("/")[0] if "/" in name else ""
        wings = {one.split("/")[0] for one in used if "/" in one} - {folder}
        allowed = {"store": set(), "training": {"store", "show"}}.get(folder, {"store"})
        if folder or name in METHOD:
            assert wings <= allowed, (name, wings)
    done: set[str] = set()
    while todo := {n for n in wing if n not in done and not n.endswith("__init__")}:
        free = {n for n in todo if not {one for one in wing[n] if one in todo}}
        assert free, f"a circle among {sorted(todo)}"
        done |= free


def test_the_step_knows_neither_files_nor_processes():
    used = imports("training/step.py")
    assert not {one for one in used if one.startswith(("store", "show"))}
    names = {alias.name for node in ast.walk(TREES["training/step.py"])
             if isinstance(node, ast.Import) for alias in node.names}  # fmt: skip
    assert names == {"torch", "torch.nn.functional"}


def test_nothing_is_too_long_to_be_read():
    lines = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    assert max(lines.values()) <= 300
    assert sum(lines[f"{name}.py"] for name in METHOD) <= 1500
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                most = 60 if isinstance(node, ast.FunctionDef) else 150
                assert node.end_lineno - node.lineno < most, (name, node.name)
