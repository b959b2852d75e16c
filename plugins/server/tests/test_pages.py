"""The page: what is sent, and under which rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sis_server.pages import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_files_are_sent_under_strict_rules(server: Any, name: str) -> None:
    answer = server.client.get(f"/page/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(KINDS[name])
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_only_files_that_are_there(server: Any) -> None:
    page = server.client.get("/").text
    named = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert named
    for path in named:
        assert server.client.get(path).status_code == 200
    scripts = [server.client.get(f"/page/{name}").text for name in KINDS if name.endswith(".js")]
    for script in scripts:
        for module in re.findall(r'from "\./([^"]*)"', script):
            assert module in KINDS
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_nothing_of_the_page_stands_in_its_html(server: Any) -> None:
    """The rules forbid scripts and styles that are not files."""
    page = server.client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e%2fapp.py", "page.py", "", "INDEX.HTML"])
def test_other_files_are_not_sent(server: Any, name: str) -> None:
    assert server.client.get(f"/page/{name}").status_code == 404
