"""The hint that one thread would be faster: when it comes, and that it leaves no trace."""

from types import SimpleNamespace

import pytest
import torch
from helpers import snapshot

from vae.training import loop
from vae.training.machine import Machine
from vae_store.pace import Pace


def said(steps, alone=0.2):
    """What is said after each of some steps' seconds."""
    pace = Pace()
    pace.alone = alone
    for seconds in steps:
        pace.note(seconds)
        if text := pace.advice(seconds):
            yield text


def test_the_hint_comes_once_where_threads_wait_and_never_on_a_quiet_machine():
    quiet = [0.15, 0.12, 0.12, 0.12]  # of two threads, of which one alone takes 0.2 s
    assert not list(said(quiet * 1000))
    hiccups = [*[0.8] * 20, *quiet * 30, 3600, *quiet * 30]  # slow for 16 s; a process that stood
    assert not list(said(hiccups * 20))
    (text,) = said([*quiet * 1000, *[0.6] * 100])
    assert "A step takes 0.6 s with" in text
    assert "and 0.2 s with one" in text
    assert "--threads 1 (in a notebook: threads=1)" in text
    assert len(list(said([7] * 8))) == 1  # within a minute
    assert not list(said([7] * 100, alone=Pace().alone))  # never measured: one thread, or a GPU


def test_steps_are_compared_with_one_threads_and_go_on_as_if_it_had_never_been_timed(
    begin, monkeypatch, capsys
):
    def trained():
        training = begin()
        monkeypatch.setattr(training, "measure", lambda: None)
        monkeypatch.setattr(training, "finish", lambda started: None)
        assert loop.complete(training, resume=False)
        return [*snapshot(training.ema), *snapshot(training.averaged), *training.memory.values()]

    def measure(pace, step):
        taken = of(pace, step)
        times.append(pace.alone)
        pace.alone = 1e-9  # so that each step is slow
        return taken

    expected, times, of, number = trained(), [], Pace.measure, [1, 2]
    assert "--threads" not in capsys.readouterr().err
    monkeypatch.setattr("vae_store.pace.LOST", 20)
    monkeypatch.setattr(Pace, "measure", measure)
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[-1])
    monkeypatch.setattr(torch, "set_num_threads", number.append)
    assert all(torch.equal(a, b) for a, b in zip(trained(), expected, strict=True))
    assert number == [1, 2, 1, 2]
    assert 0 < times[0] < 60
    assert capsys.readouterr().err.count("--threads 1") == 1


def test_one_thread_a_gpu_and_several_processes_are_not_timed(begin, monkeypatch):
    training = begin()
    monkeypatch.setattr(training, "fit", lambda: False)
    monkeypatch.setattr(training, "training_step", None)
    loop.complete(training, resume=False)  # with one thread
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with monkeypatch.context() as patched:
        patched.setattr(Machine, "num_processes", 2)
        loop.complete(training, resume=True)
    training.device = SimpleNamespace(type="cuda")
    monkeypatch.setattr(loop, "restore", lambda training: None)
    loop.complete(training, resume=True)
    training.device = torch.device("cpu")
    with pytest.raises(TypeError, match="not callable"):
        loop.complete(training, resume=True)
