"""How the package is built: one package, one wing, arrows that go one way, and short pieces."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import vae

ROOT = Path(vae.__file__).parents[1]
FACE = ("__init__", "__main__")
GROUND = ("checks", "settings", "pretrained")
METHOD = ("data", "blocks", "couplings", "posterior", "model", "discriminator", "perceptual",
          "losses", "step", "prior", "metrics")  # fmt: skip
METHOD_LINES, READ_LINES, ALL_LINES = 1612, 2123, 6229  # of METHOD, with GROUND, of all
TEXTS = {
    path.relative_to(ROOT / "vae").with_suffix("").as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "vae").rglob("*.py"))
}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
LINES = {name: len(text.splitlines()) for name, text in TEXTS.items()}
LIGHT = """
import sys, vae
assert "torch" not in sys.modules
assert set(vae.__all__) <= set(dir(vae))
model = vae.VAE.from_pretrained(sys.argv[1])
images = vae.load_digits("test").images[:20]
vae.evaluate(model, images, lpips_images=4)
model.sample(1)
heavy = "matplotlib skimage sklearn imageio PIL IPython scipy torchvision huggingface_hub".split()
assert not (found := [name for name in heavy if name in sys.modules]), found
"""


def imports(name: str) -> set[str]:
    """The project's own modules that a module imports, by their paths in `vae/`."""
    folder, found = Path(name).parent, set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [folder, *folder.parents][node.level - 1] / (node.module or "").replace(".", "/")
            found |= {path.as_posix() for path in [base, *(base / a.name for a in node.names)]}
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(one.split(".")[0] == "vae" for one in names), (name, names)  # relative
    return found & TREES.keys()


def test_the_package_is_fourteen_files_and_one_wing_with_nothing_importable_beside_it():
    top = {name for name in TEXTS if "/" not in name}
    assert top == {*FACE, *GROUND, *METHOD}
    assert {name.partition("/")[0] for name in TEXTS.keys() - top} == {"machinery"}
    assert '\ninclude = ["vae", "vae.*"]\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    beside = {path.parent.name for path in ROOT.glob("*/__init__.py")} | set(ROOT.glob("*.py"))
    assert beside == {"vae"}


def test_arrows_go_one_way():
    used = {name: imports(name) for name in TREES}
    for name in (*GROUND, *METHOD):
        assert not {one for one in used[name] if one.startswith("machinery")}, name
    done: set[str] = set()
    while todo := {name for name in used if name not in done}:
        free = {name for name in todo if not used[name] & todo - {name}}
        assert free, f"a circle among {sorted(todo)}"
        done |= free


def test_the_step_knows_neither_files_nor_processes():
    assert imports("step") == {"losses"}
    modules = {a.name for node in ast.walk(TREES["step"]) if isinstance(node, ast.Import)
               for a in node.names}  # fmt: skip
    assert modules == {"torch", "torch.nn.functional"}


def test_every_module_defines_something_and_none_only_passes_names_on():
    for name in TREES.keys() - {*FACE, "machinery/__init__"}:
        kinds = ast.FunctionDef | ast.ClassDef
        assert any(isinstance(node, kinds) for node in TREES[name].body), name


def test_no_two_places_share_six_lines():
    blocks = Counter()
    for text in TEXTS.values():
        lines = [line.strip() for line in text.splitlines() if line.strip(" )]}")]
        lines = [line for line in lines if not line.startswith(("import ", "from "))]
        blocks.update({tuple(lines[k : k + 6]) for k in range(len(lines) - 5)})
    assert not [block for block, count in blocks.items() if count > 1]


def test_nothing_is_too_long_to_be_read():
    assert max(LINES.values()) <= 320
    assert sum(LINES[name] for name in METHOD) <= METHOD_LINES
    assert sum(LINES[name] for name in (*GROUND, *METHOD)) <= READ_LINES
    assert sum(LINES.values()) <= ALL_LINES
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                most = 60 if isinstance(node, ast.FunctionDef) else 150
                assert node.end_lineno - node.lineno < most, (name, node.name)


def test_a_model_is_loaded_and_measured_without_the_libraries_of_pictures_and_training():
    shipped = ROOT / "assets" / "latent_2"
    subprocess.run([sys.executable, "-c", LIGHT, shipped], check=True, cwd=ROOT)


def test_every_public_name_is_there_and_nothing_else_is():
    for name in vae.__all__:
        assert getattr(vae, name) is not None
    assert vae.figures.plot_samples  # where the notebooks look
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vae.nothing  # noqa: B018
