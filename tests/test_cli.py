import runpy
import sys
from pathlib import Path

import pytest
from helpers import failing

import vae
from vae.machinery import cli
from vae.machinery.cli import main, parser
from vae.settings import options_of


def test_every_setting_is_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["train", "--help"])
    shown = capsys.readouterr().out
    for one in (*options_of(vae.VAEConfig), *options_of(vae.TrainConfig)):
        assert f"--{one.name.replace('_', '-')}" in shown
    for flag in ("--run-dir", "--budget", "--resume", "--no-self-attention"):
        assert flag in shown


def test_a_users_mistake_is_one_line_and_a_code(monkeypatch, capsys):
    assert main(["train", "--latent-grid", "5"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("vae: latent_grid=5 is not allowed: one of (1, 7, 8,")
    assert told.count("\n") == 1
    assert main(["sharpen", "/no/such/folder", "--threads", "0"]) == 2
    assert "threads=0 is not allowed: int, at least 1" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["vae", "evaluate", "/no/such/folder"])
    with pytest.raises(SystemExit, match=r"^2$"):
        runpy.run_module("vae", run_name="__main__")
    assert f"{Path('/no/such/folder/config.json')} does not exist" in capsys.readouterr().err


def test_an_interrupt_is_one_line_that_says_what_goes_on(monkeypatch, capsys):
    for name in ("run_train", "run_evaluate"):
        monkeypatch.setattr(cli, name, failing(KeyboardInterrupt()))
    assert main(["evaluate", "x"]) == 130
    assert capsys.readouterr().err == "vae: interrupted\n"
    assert main(["train"]) == 130
    said = "vae: interrupted; --resume goes on from the last checkpoint\n"
    assert capsys.readouterr().err == said
