"""The comparison with other tools: which steps are measured, and from when to when."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import peers
from benchmarks.measure import Report
from benchmarks.peers import Peer

VERBS = {"create": ("tool", "up"), "suspend": ("tool", "sleep"), "remove": ("tool", "rm")}


def test_a_life_has_the_steps_that_the_peer_has_in_their_order() -> None:
    done: list[Sequence[str]] = []
    steps = [timed.step for timed in Peer("tool", VERBS, done.append).life(list(peers.STEPS))]
    assert steps == ["create", "suspend", "remove"]
    assert done == list(VERBS.values())


def test_docker_is_waited_for_after_what_starts_a_machine() -> None:
    done: list[object] = []
    peer = Peer("tool", VERBS, done.append, lambda: done.append("docker"))
    measured = list(peer.life(["create", "suspend"]))
    assert done == [("tool", "up"), "docker", ("tool", "sleep")]
    assert [timed.what for timed in measured] == ["tool, to the prompt", "tool, to Docker answering", "tool"]
    assert measured[1].seconds > measured[0].seconds


def test_each_step_has_a_row_for_each_peer_and_the_first_create_its_own() -> None:
    report = Report("peers")
    peers._lives(report, [Peer(name, VERBS, lambda _: None) for name in ("a", "b")])
    assert [(figure.what, len(figure.values)) for figure in report.figures] == [
        (f"{step}: {name}", runs)
        for step, runs in (("the first create", 1), ("create", 3), ("suspend", 3), ("remove", 3))
        for name in ("a", "b")
    ]


def test_a_failure_ends_that_life_only_and_is_told() -> None:
    done: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> None:
        done.append(words)
        if words[1] == "sleep" and done.count(words) == 2:
            raise RuntimeError("['enter', 'tool', 'sleep']: exit code 1\nno room")

    report = Report("peers")
    peers._lives(report, [Peer("a", VERBS, run)])
    assert {figure.what: len(figure.values) for figure in report.figures} == {
        "the first create: a": 1,
        "create: a": 3,
        "suspend: a": 2,
        "remove: a": 2,
    }
    assert report.notes == ["a: a life ended early: tool sleep: no room"]
    assert done.count(VERBS["create"]) == done.count(VERBS["remove"]) == 4
