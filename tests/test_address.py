"""The repository's address, wherever it is pushed to; and the forge's workflows."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from address import NAMING, PLACEHOLDER, branch, page, read_remote, stamp, stamped
from common import ROOT

TEXTS = {path.name: path.read_text("utf-8") for path in ROOT.glob(".github/workflows/*.yml")}
WORKFLOWS = {name: yaml.safe_load(TEXTS[name]) for name in sorted(TEXTS)}
ON_DEFAULT = "github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
MAY = {  # what jobs may do, beside reading the repository
    ("address.yml", "stamp"): {"contents": "write"},
    ("pages.yml", "ask"): {"pages": "read"},
    ("pages.yml", "deploy"): {"pages": "write", "id-token": "write"},
}


@pytest.fixture
def copy(tmp_path):
    """A copy of everything that names the address, with the script."""
    for pattern in (*NAMING, "tools/address.py"):
        for path in ROOT.glob(pattern):
            there = tmp_path / path.relative_to(ROOT)
            there.parent.mkdir(exist_ok=True)
            shutil.copy(path, there)
    return tmp_path


def texts(folder):
    """The files that name the address, by their paths."""
    paths = [path for pattern in NAMING for path in folder.glob(pattern)]
    return {path.relative_to(folder).as_posix(): path.read_bytes().decode() for path in paths}


def test_everything_that_names_the_old_address_names_the_new_one(copy):
    before, old = texts(copy), stamped(copy)
    changed = stamp("some-body/their.vae", "their-main", copy)
    after = texts(copy)
    assert (stamped(copy), branch(copy)) == ("some-body/their.vae", "their-main")
    names = {path.relative_to(copy).as_posix() for path in changed}
    assert names == {name for name, text in before.items() if f"/{old}" in text}
    assert {"pyproject.toml", "README.md", "notebooks/vae_latent_4.ipynb"} <= names
    for name, text in after.items():
        assert f"/{old}" not in text, name
        assert f"//{page(old)}/" not in text, name
        places = rf"github(?:\.com)?/{re.escape(old)}"
        assert len(re.findall(places, before[name])) == text.count("/some-body/their.vae")
        assert set(re.findall(r"their\.vae/blob/([^/]+)/", text)) <= {"their-main"}, name
        if name.endswith(".ipynb"):
            now, then = (nbformat.reads(one, 4).cells for one in (text, before[name]))
            assert [cell.get("outputs") for cell in now] == [cell.get("outputs") for cell in then]
    assert stamp("some-body/their.vae", "their-main", copy) == []
    assert texts(copy) == after
    stamp(old, "a/b@c+d", copy)  # and back from a branch with a slash
    assert '/blob/a/b@c+d/notebooks/\\"  # where' in texts(copy)["notebooks/vae_latent_4.ipynb"]
    assert branch(copy) == "a/b@c+d"
    stamp(old, branch(), copy)
    assert texts(copy) == before


def test_an_address_is_only_itself(copy):
    page = copy / "README.md"
    text = "https://github.com/{0}\r\ngithub.com/A/B-more github.com/A/B.x, A/B github.com/{0}.git"
    page.write_bytes(text.format("A/B").encode())
    stamp("A/B", None, copy)
    stamp("C/D", None, copy)
    assert page.read_bytes().decode() == text.format("C/D")
    with pytest.raises(ValueError, match=r"^address=.* is not allowed"):
        stamp("https://github.com/A/B", None, copy)
    for odd in ("", "a b", "-x", "a/$(b)"):
        with pytest.raises(ValueError, match=r"^branch=.* is not allowed: letters"):
            stamp("C/D", odd, copy)


LINKS = '[A](https://{0}/), https://{0}/?run=latent_2#z <https://{0}> "//{0}" https://{0}.\r\n'
OTHERS = "https://A.github.io/B-more/ https://xA.github.io/B/ https://x.A.github.io/B/ A.B/B "
OTHERS += "https://A.github.io/other/ https://A.github.io/B.x https://github.com/X/A.github.io "
OTHERS += "https://me.github.io/other/ https://Axgithub.io/B/ https://github.com/X/me.github.io "


@pytest.mark.parametrize(("address", "shown"), [
    ("Some-body/their.vae", "Some-body.github.io/their.vae"), ("me/me.github.io", "me.github.io"),
    ("Me/me.github.io", "Me.github.io"),
    ("me/you.github.io", "me.github.io/you.github.io")])  # fmt: skip
def test_links_to_the_published_page_follow_the_address_and_come_back(address, shown, copy):
    stamp("A/B", None, copy)
    pages = "README.md", "docs/how-to.md", "notebooks/vae_latent_4.ipynb"
    for name in pages:
        (copy / name).write_bytes((OTHERS + LINKS.format("A.github.io/B")).encode())
    before = texts(copy)
    stamp(address, None, copy)
    after = texts(copy)
    for name in pages:
        assert after[name] == OTHERS + LINKS.format(shown)
    assert f'Explorer = "https://{shown}/"' in after["pyproject.toml"]
    stamp(address, None, copy)
    assert texts(copy) == after
    stamp("A/B", None, copy)
    assert texts(copy) == before


def test_deeper_links_are_stamped_and_those_below_a_bare_host_are_other_repositories(copy):
    stamp("A/B", None, copy)
    (copy / "README.md").write_text("https://A.github.io/B/models/index.json")
    for address in "C/C.github.io", "A/B":
        stamp(address, None, copy)
        assert (copy / "README.md").read_text() == "https://C.github.io/models/index.json"


def test_remotes_are_read_in_every_form_and_others_are_not_taken():
    for url in ("https://github.com/a-b/c.d.git", "https://github.com/a-b/c.d",
                "git@github.com:a-b/c.d.git", "ssh://git@github.com/a-b/c.d",
                "ssh://git@ssh.github.com:443/a-b/c.d.git", "https://github.com/a-b/c.d/",
                "https://user:token@github.com/a-b/c.d.git"):  # fmt: skip
        assert read_remote(url) == "a-b/c.d", url
    for url in ("", "/some/folder", "https://gitlab.com/a/b.git",
                "https://github.com.evil.org/a/b", "https://github.com/a"):  # fmt: skip
        assert read_remote(url) is None, url


def test_without_an_address_that_of_origin_is_taken_and_said(copy):
    stamp(PLACEHOLDER, None, copy)

    def run(*command):
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout

    script = [sys.executable, "tools/address.py"]
    run("git", "init", "--quiet")
    assert f"{PLACEHOLDER}, from pyproject.toml. Files that changed: 0" in run(*script)
    run("git", "remote", "add", "origin", "git@github.com:me/mine.git")
    assert "me/mine, from the remote `origin`" in run(*script)
    assert stamped(copy) == "me/mine"
    run("git", "remote", "set-url", "origin", "https://github.com/you/yours")
    assert "me/mine, from pyproject.toml. Files that changed: 0" in run(*script)
    assert "you/yours, as it was given" in run(*script, "you/yours")
    assert stamped(copy) == "you/yours"


@pytest.mark.parametrize("file", WORKFLOWS)
def test_workflows_pin_their_actions_and_ask_for_little(file):
    assert WORKFLOWS[file]["permissions"] == {}, "of all jobs: none"
    for name, job in WORKFLOWS[file]["jobs"].items():
        assert job["timeout-minutes"] <= 60
        assert job["permissions"] == MAY.get((file, name), {"contents": "read"})
        for step in job["steps"]:
            assert re.fullmatch(r"(actions/[\w-]+@[0-9a-f]{40})?", step.get("uses", ""))
            assert "${{" not in step.get("run", ""), "what a branch is named is not code"
    for script in re.findall(r"tools/[\w.]+|\.ci/run", TEXTS[file]):
        assert (ROOT / script).is_file()


def test_the_stamp_cannot_start_itself_and_runs_on_the_default_branch_alone():
    (job,) = WORKFLOWS["address.yml"]["jobs"].values()
    assert job["if"] == ON_DEFAULT  # whole: a tag may have the branch's name
    assert "secrets" not in TEXTS["address.yml"]  # its own token, whose pushes start nothing
    commit = job["steps"][-1]["run"]
    assert commit.startswith("git diff --quiet && exit 0")


def test_the_page_is_published_from_the_default_branch_alone_and_where_that_is_switched_on():
    ask, build, deploy = (WORKFLOWS["pages.yml"]["jobs"][k] for k in ("ask", "build", "deploy"))
    assert ask["if"] == ON_DEFAULT
    assert ask["outputs"] == {"source": "${{ steps.ask.outputs.source }}"}
    assert [step["id"] for step in ask["steps"]] == ["ask"]
    assert (build["needs"], deploy["needs"]) == ("ask", "build")
    assert build["if"] == "needs.ask.outputs.source == 'workflow'"
    assert "if" not in deploy  # runs if what it needs succeeded, and was not left out
    make, test, upload = build["steps"][-3:]
    assert make["run"] == "make explorer-page"  # which makes .venv with what is in it already
    assert "\n.venv/bin/python -m pip install torch torchvision " in build["steps"][-4]["run"]
    assert test["run"] == "EXPLORER_TESTS=must .venv/bin/python -m pytest tests/test_explorer.py"
    assert upload["with"] == {"path": "explorer/dist"}
    assert deploy["environment"]["name"] == "github-pages"


@pytest.mark.unix
@pytest.mark.parametrize(("gh", "source"), [
    ("echo workflow", "workflow"), ("echo legacy", "legacy"),
    ("echo '{\"message\": \"Not Found\"}'; exit 1", "none")])  # fmt: skip
def test_where_the_page_cannot_be_published_the_owner_is_told_what_to_choose(gh, source, tmp_path):
    (step,) = WORKFLOWS["pages.yml"]["jobs"]["ask"]["steps"]
    (tmp_path / "gh").write_text(f"#!/bin/sh\n[ $2 = repos/A/B/pages ] || exit 2\n{gh}\n")
    (tmp_path / "gh").chmod(0o755)
    values = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "GITHUB_REPOSITORY": "A/B"}
    values["GITHUB_OUTPUT"] = str(tmp_path / "output")
    command = ["bash", "--noprofile", "--norc", "-e", "-c", step["run"]]  # as GitHub calls it
    said = subprocess.run(command, env=values, capture_output=True, text=True, check=True).stdout
    assert (tmp_path / "output").read_text() == f"source={source}\n"
    told = "::warning title=Nothing was published::Choose Settings > Pages > Build and deployment"
    told += " > Source: GitHub Actions, then run this workflow again.\n"
    assert said == ("" if source == "workflow" else told)


def test_ci_covers_the_oldest_and_the_newest_python_and_three_systems():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = re.findall(r"Python :: (3\.\d+)", project)
    linux, others = (WORKFLOWS["ci.yml"]["jobs"][name] for name in ("linux", "others"))
    assert linux["strategy"]["matrix"]["python"] == [named[0], named[-1]]
    assert f'requires-python = ">={named[0]}"' in project
    assert linux["steps"][-1]["run"] == ".ci/run"
    systems = [linux["runs-on"], *others["strategy"]["matrix"]["system"]]
    assert [name.split("-")[0] for name in systems] == ["ubuntu", "macos", "windows"]
    assert not any("make" in step.get("run", "") for step in others["steps"])
