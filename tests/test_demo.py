"""Does the demo run offline, without torch, and show what it promises?"""

from __future__ import annotations

import json

from mergecore import pocket


def test_the_demo_merges_and_tests_the_pocket_experts(command, tmp_path):
    answer = command("demo", "--keep", "kept", "--json")
    assert answer.status == 0, answer.err
    shown = json.loads(answer.out)
    for name in pocket.EXPERTS:
        assert shown["accuracy"][name][name] > shown["accuracy"]["base"][name]
    for method, report in shown["merges"].items():
        assert f"merged: {method}" in shown["accuracy"]
        assert command("verify", report["out"]).status == 0


def test_the_demo_prints_tables_and_what_to_try_next(command):
    answer = command("demo", "--keep", "kept")
    for word in (*pocket.EXPERTS, "GB/s", "peak RSS", "mergecore verify", "Try next"):
        assert word in answer.out
    assert command("demo", "--keep", "kept").status == 2
