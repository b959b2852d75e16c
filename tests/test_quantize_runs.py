"""Runs of `sis quantize` that are killed, meet or are watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workbench import SIS, format_file, refused, sis, types

from sis_core.gguf_file import GGUFFile


def work_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.sis-work")


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return format_file(folder, "slow", name="SLOW8", delay=0.15)


def start(random_model: Path, out: Path, slow: Path) -> subprocess.Popen[str]:
    """A slow run, once some tensors are finished."""
    args = [*SIS, "--plugin", str(slow), "quantize", str(random_model), str(out), "--to", "slow8", "--pure", "-t", "1"]
    running = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    done = work_folder(out) / "done"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        if done.exists() and len(done.read_text().splitlines()) >= 4:
            return running
        time.sleep(0.01)
    running.kill()
    raise AssertionError(running.communicate())


def test_a_killed_run_goes_on(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not out.exists()
    done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 2, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["resumed"] >= 4
    assert f"going on; {summary['resumed']} of 21 tensors are done" in done.stderr
    assert not work_folder(out).exists()
    other = tmp_path / "other.gguf"
    assert sis("--plugin", slow, "quantize", random_model, other, "--to", "slow8", "--pure").returncode == 0
    assert out.read_bytes() == other.read_bytes()


def test_torn_bytes_are_made_again(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    part = work_folder(out) / "model.gguf"
    with GGUFFile.open(part) as file:
        offset = file.tensors["token_embd.weight"].offset
    with part.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(64))
    assert sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure").returncode == 0
    with GGUFFile.open(out) as file:
        assert file.raw("token_embd.weight")[:64].any()


def test_another_command_starts_anew(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done = sis("quantize", random_model, out, "--to", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "the unfinished work of another command, or of a format that was changed, was there" in done.stderr
    assert types(out)["token_embd.weight"] == "Q8_0"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "plugins"]


def test_an_edited_format_starts_anew(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out, other = tmp_path / "out.gguf", tmp_path / "other.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    slow.write_text(slow.read_text().replace("127 / 2.0", "126 / 2.0"), "utf-8")
    command = ["--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 2, "--json"]
    done = sis(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] == 0
    assert "a format that was changed" in done.stderr
    assert sis(*(other if part == out else part for part in command)).returncode == 0
    assert out.read_bytes() == other.read_bytes()


def test_ctrl_c_keeps_the_work(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 1)
    assert "going on;" in done.stderr


def test_two_runs_do_not_meet(random_model: Path, tmp_path: Path, slow: Path) -> None:
    out = tmp_path / "out.gguf"
    running = start(random_model, out, slow)
    running.send_signal(signal.SIGSTOP)  # so that it is not done before the other one begins
    try:
        done = sis("--plugin", slow, "quantize", random_model, out, "--to", "slow8", "--pure", "-t", 1)
        refused(done, f"out.gguf: is being written by process {running.pid}")
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def test_a_bar_on_a_terminal_only(random_model: Path, tmp_path: Path, slow: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    args = [*SIS, "--plugin", str(slow), "quantize", str(random_model), str(tmp_path / "o.gguf"), "--to", "slow8"]
    args += ["-t", "1"]  # a bar appears when work takes a moment, which two threads might not need
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    assert done.returncode == 0
    assert "blk." in drawn.decode()
    assert b"\x1b" not in done.stdout
