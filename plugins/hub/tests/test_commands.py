"""``sis pull``, ``list``, ``rm`` and ``verify`` as a user meets them, in processes of their own where that matters."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sis_hub
from click.testing import CliRunner, Result
from sis_hub.fake_hub import FakeHub, FakeRepo, serving
from sis_hub.hub import HubSource
from sis_hub.packages import PackageSource
from sis_hub.zoo import ZooSource

from sis_core import Registry, hookimpl
from sis_core.cli.main import group
from sis_core.errors import SourceError
from sis_core.source import Listing, Source, each_once

Start = Callable[..., "subprocess.Popen[str]"]
TINY = "hf://me/tiny"


def done(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out, err


@pytest.fixture
def sis(source: HubSource) -> Callable[..., Result]:
    """Runs the program in this process, with the sources at the fake hub."""

    class Plugin:
        @hookimpl
        def sis_register_sources(self) -> list[Source]:
            return [source, ZooSource(source), PackageSource()]

        sis_register_commands = staticmethod(sis_hub.sis_register_commands)

    registry = Registry.of(Plugin())
    return lambda *arguments: CliRunner().invoke(group, arguments, obj={"registry": registry})


def test_list_verify_and_rm(sis: Callable[..., Result], source: HubSource, model: bytes) -> None:
    path = source.resolve(TINY)
    assert path is not None
    found = {m["name"]: m for m in json.loads(sis("list", "--json").stdout)["models"]}
    expected = {"name": f"{TINY}:Q8_0", "bytes": len(model), "licence": "mit", "path": str(path)}
    assert found[f"{TINY}:Q8_0"] == expected
    assert "hf://me/tiny:Q8_0\t6.0 MiB\tmit" in sis("list").stdout
    assert sis("verify", f"{TINY}:Q8_0").stdout == "ok: hf://me/tiny:Q8_0\n"
    path.resolve().write_bytes(b"GGUF")
    damaged = sis("verify", f"{TINY}:Q8_0")
    assert damaged.stdout.startswith("DAMAGED hf://me/tiny:Q8_0: ")
    assert isinstance(damaged.exception, SourceError)
    assert sis("rm", f"{TINY}:Q8_0").stdout == "removed hf://me/tiny:Q8_0\n"
    gone = sis("rm", f"{TINY}:Q8_0").exception
    assert "no such model is here" in str(gone)


def test_a_file_is_listed_once_by_its_shortest_name(tmp_path: Path) -> None:
    listings = [
        Listing("pkg://sis-tiny/tiny.gguf", tmp_path, 1),
        Listing("b", tmp_path / "b", 1),
        Listing("tiny", tmp_path, 1),
    ]
    assert [listing.name for listing in each_once(listings)] == ["tiny", "b"]


def test_pull_says_what_it_does_not_know(sis: Callable[..., Result]) -> None:
    assert "no-such-model: no installed source knows this model" in str(sis("pull", "no-such-model").exception)


def test_a_zoo_name_leads_to_the_hub(sis: Callable[..., Result], hub: FakeHub, model: bytes) -> None:
    hub.repos["Qwen/Qwen3-0.6B-GGUF"] = FakeRepo({"Qwen3-0.6B-Q8_0.gguf": model})
    path = Path(sis("pull", "qwen3-0.6b").stdout.split(" at ")[1].strip())
    assert path.read_bytes() == model
    assert sis("inspect", "qwen3-0.6b", "--no-tensors").exit_code == 0
    assert sis("rm", "qwen3-0.6b").exit_code == 0
    assert not path.exists()


def test_inspect_fetches_the_header_alone(
    sis: Callable[..., Result], hub: FakeHub, model: bytes, tmp_path: Path
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(model)
    shown = sis("inspect", TINY)
    assert shown.exit_code == 0
    lines = sis("inspect", str(tmp_path / "tiny.gguf")).stdout.splitlines()
    lines = [line for line in lines if not line.startswith("it will be refused")]  # a header alone does not tell
    assert shown.stdout.splitlines()[1:] == lines[1:]
    assert shown.stdout.startswith("hf://me/tiny: GGUF version 3, 56 tensors")
    ranges = [what for _, path, what in hub.requests if path.endswith(".gguf")]
    assert sum(int(end) - int(start) + 1 for start, end in (what[6:].split("-") for what in ranges)) < len(model) / 4
    assert sis("inspect", f"{TINY}:Q5_K").exit_code == 1
    hub.repos["me/bad"] = FakeRepo({"bad.gguf": b"GGUF" + b"\xff" * 2000})
    assert "hf://me/bad: this is GGUF version 4294967295" in str(sis("inspect", "hf://me/bad").exception)


def test_pull_and_generate_with_nothing_more_asked(start: Start, hub: FakeHub) -> None:
    out, _ = done(start("pull", TINY))
    assert out.startswith("hf://me/tiny: 6.0 MiB at ")
    asked = len(hub.requests)
    out, _ = done(start("generate", "-m", f"{TINY}:Q8_0", "Once", "--max-tokens", "4", "--sampler", "greedy"))
    assert len(out) > 4
    assert len(hub.requests) == asked


def test_a_killed_download_goes_on_where_it_was(start: Start, hub: FakeHub, model: bytes, tmp_path: Path) -> None:
    hub.delay = 0.01
    process = start("pull", TINY)
    partial = wait_for(tmp_path / "hf-home", "*.incomplete", 400_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = partial.stat().st_size
    assert 0 < had < len(model)
    hub.delay = 0.0
    out, _ = done(start("pull", TINY))
    assert Path(out.split(" at ")[1].strip()).read_bytes() == model
    assert [what for _, path, what in hub.requests if path.endswith(".gguf")] == ["", f"bytes={had}-"]
    assert not list((tmp_path / "hf-home").rglob("*.incomplete"))


def test_two_processes_download_once(start: Start, hub: FakeHub, model: bytes) -> None:
    hub.delay = 0.002
    both = [start("pull", TINY), start("pull", TINY)]
    paths = {done(process)[0].split(" at ")[1].strip() for process in both}
    assert [Path(path).read_bytes() for path in paths] == [model]
    assert sum(path.endswith(".gguf") for path in hub.downloads) == 1


def test_a_full_disk_leaves_nothing_half_written(start: Start, hub: FakeHub, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="the limit on a file's size that plays a full disk is Unix's")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    _, err = done(start("pull", TINY, prefix=limit), 1)
    assert "the disk is full; what had arrived was removed. Make room" in err
    assert not [path for path in (tmp_path / "hf-home").rglob("*") if path.is_file() and path.stat().st_size > 200]


def test_a_proxy_is_used_and_a_token_never_shown(start: Start, hub: FakeHub) -> None:
    hub.token = "hf_verysecret"
    elsewhere = {"HF_ENDPOINT": "http://hub.example", "HTTP_PROXY": hub.url, "NO_PROXY": ""}
    out, err = done(start("-vv", "pull", TINY, HF_TOKEN=hub.token, **elsewhere))
    assert hub.downloads
    assert "verysecret" not in out + err


def test_signed_addresses_are_never_shown(start: Start, hub: FakeHub, model: bytes) -> None:
    """Neither one that a hub redirects to, however much is logged, nor one that was typed."""
    with serving(FakeHub(files={f"/signed/me/tiny/resolve/{'a' * 40}/tiny-Q8_0.gguf": model})) as storage:
        del hub.repos["me/tiny"].files["README.md"]
        hub.storage = f"{storage.url}/signed"
        out, err = done(start("-vv", "pull", TINY))
        assert "/signed" not in out + err
        storage.files["m.gguf"] = model
        out, err = done(start("-vv", "pull", storage.url.replace("//", "//me:word@") + "/files/m.gguf?signature"))
        assert out.startswith(f"{storage.url}/files/m.gguf: 6.0 MiB at ")
        assert "word@" not in out + err
        assert "?signature" not in out + err


def test_the_guard_sees_what_leaves_loopback() -> None:
    with pytest.raises(RuntimeError, match=r"leaves loopback: hub\.example"):
        socket.getaddrinfo("hub.example", 443)
    with socket.socket() as unconnected, pytest.raises(RuntimeError, match=r"leaves loopback: 192\.0\.2\.1"):
        unconnected.connect(("192.0.2.1", 443))


def test_help_imports_nothing_heavy(start: Start) -> None:
    check = "import atexit\natexit.register(lambda: print([m for m in HEAVY if m in sys.modules]))\nimport sys\n"
    heavy = "HEAVY = ['huggingface_hub', 'httpx2', 'fsspec', 'numpy', 'sis_hub', 'gguf']\n"
    out, _ = done(start("--help", prefix=heavy + check))
    assert "(from sis-hub)" in out
    assert out.endswith("[]\n")


def test_a_file_on_this_machine_needs_no_network(start: Start) -> None:
    check = "import atexit, sys\natexit.register(lambda: print([m for m in HEAVY if m in sys.modules]))\n"
    heavy = "HEAVY = ['huggingface_hub', 'httpx2', 'fsspec', 'platformdirs']\n"
    out, _ = done(start("tokenize", "-m", "tiny", "Once", prefix=heavy + check))
    assert out.endswith("[]\n")


def wait_for(folder: Path, pattern: str, n_bytes: int) -> Path:
    for _ in range(2000):
        for path in folder.rglob(pattern) if folder.exists() else ():
            if path.exists() and path.stat().st_size >= n_bytes:
                return path
        time.sleep(0.01)
    raise AssertionError(f"no {pattern} of {n_bytes} bytes appeared")
