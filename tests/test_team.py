"""Threads of a step (native/team.c), their number dictated here, not learnt: who is left out watches meanwhile."""

from __future__ import annotations

import ctypes
import importlib.util
import os

import pytest
from c_units import NATIVE, built

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang, which builds, is missing")

# Members of a step are one, one, all, one, one, all …; those left out are always to watch.
DICTATED = r"""
#include "pace.h"
#include "team.h"

static uint32_t steps;
static int told;

uint32_t pace_members(struct pace *p, uint32_t most)
{
    (void)p;
    return ++steps % 3 ? 1 : most;
}
uint32_t pace_to_watch(const struct pace *p) { (void)p; return steps % 3 ? 2 : 0; }
void pace_watched(struct pace *p, int are_free) { (void)p; told += are_free == 0 || are_free == 1; }
void pace_learn(struct pace *p, uint32_t members, uint32_t rows, uint64_t ns, uint64_t waited)
{
    (void)p, (void)members, (void)rows, (void)ns, (void)waited;
}

enum { UNITS = 64 };
static int done[UNITS];

static void count(void *context, struct team *team, uint32_t member)
{
    (void)context;
    for (uint32_t u; (u = team_claim(team, member, UNITS)) < UNITS;) done[u]++;
}

/* How many of n steps did each unit once. */
int run(int n)
{
    int right = 0;
    const struct kind kind = {&told, 1};
    for (int i = 0; i < n; i++) {
        for (int u = 0; u < UNITS; u++) done[u] = 0;
        team_run(2, NULL, &kind, count, NULL);
        int each = 1;
        for (int u = 0; u < UNITS; u++) each &= done[u] == 1;
        right += each;
    }
    return right;
}

int times_told(void) { return told; }
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("team")
    (folder / "dictated.c").write_text(DICTATED)
    return built(folder, folder / "dictated.c", NATIVE / "team.c", flags=("-lpthread",))


def told_within(team: ctypes.CDLL, rounds: int) -> bool:
    """Whether something was found by those who watch, while steps of all members call them away again and again."""
    before = team.times_told()
    return any(team.run(20) != 20 or team.times_told() > before for _ in range(rounds))


def test_steps_are_right_while_others_watch(team: ctypes.CDLL) -> None:
    assert team.run(500) == 500
    assert told_within(team, 100)
    assert team.run(50) == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on: the child runs little of it
def test_a_child_of_fork_begins_anew(team: ctypes.CDLL) -> None:
    team.run(4)  # somebody watches
    child = os.fork()
    if child == 0:
        os._exit(0 if team.run(50) == 50 and told_within(team, 100) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert team.run(50) == 50
