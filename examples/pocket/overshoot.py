"""What do models say that go on past what preference taught them? RL + α(RL − SFT), measured.

    python examples/pocket/overshoot.py [--family DIR] [--pairs rl,rl-2,...] [--prompts N]

For every pair of an instruction model and its preferred heir: the mean reward by the reward model,
and by the rule that it imitates, the share of degenerate replies by the rules judge, and of those
that the limit of length cut off; with the decoding that `mergecore evaluate` has by default.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from replies import Replies, measure
from roster import ROSTER
from studies import default_folder

import mergecore
from mergecore.evaluate.scorers import TransformersReward
from mergecore.pocket import chat

PAIRS = ("rl", "rl-2", "rl-b", "rl-b2", "small-rl", "medium-rl", "large-rl")
ALPHAS = (0.3, 0.5, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", type=Path, default=default_folder(), help="where models are")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="names of preferred models")
    parser.add_argument("--prompts", type=int, default=64, help="held-out instructions  [64]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = chat.instructions(args.prompts)
    grader = TransformersReward(args.family / "rm", "rm", dtype="float32")
    parents = {member.name: member.parent for member in ROSTER}
    print("| pair | α | reward model | rule | right | words | degenerate | cut off |")
    print("|---" * 8 + "|")
    for name in args.pairs.split(","):
        sft, rl = args.family / str(parents[name]), args.family / name
        _row(f"{sft.name}, {name}", "SFT", measure(sft, grader, asked))
        _row("", "0", measure(rl, grader, asked))
        for alpha in ALPHAS:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "past"
                mergecore.extrapolate(sft, rl, alpha=alpha, out=out)
                _row("", str(alpha), measure(out, grader, asked))


def _row(pair: str, alpha: str, found: Replies) -> None:
    print(
        f"| {pair} | {alpha} | {found.graded:.2f} | {found.reward:.3f} | {found.right:.0%}"
        f" | {found.words:.1f} | {found.degenerate:.0%} | {found.endless:.0%} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
