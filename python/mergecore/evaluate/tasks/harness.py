"""What of every other benchmark? lm-evaluation-harness runs it, and its JSON is kept as it is.

Its rows stand in the stage's file beside those of mergecore's own tasks, made from its samples: of
several filters the first, of several metrics the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError, RunError
from mergecore.evaluate.backends import device_of, is_installed, need
from mergecore.evaluate.backends.transformers import Load
from mergecore.evaluate.rows import Row
from mergecore.evaluate.stage import Stage
from mergecore.evaluate.tasks import GROUPS, HARNESS, TASKS, near
from mergecore.evaluate.tasks.summary import summary


class Harness:
    """The harness's tasks for one model."""

    def __init__(
        self, names: Sequence[str], include_path: str | None = None, *, quiet: bool = False
    ) -> None:
        """Looks the tasks up, before any model is loaded.

        Args:
            names: Of its tasks or groups of them.
            include_path: A folder with tasks of the user's own, looked at instead of the harness's.
            quiet: Nothing that it prints is shown.

        Raises:
            RecipeError: It is not installed, or does not know a name.
        """
        if not is_installed("lm_eval"):
            known = ", ".join([*TASKS, *GROUPS])
            raise RecipeError(
                f"{names[0]}: is no task of mergecore ({known}){near(names[0])}; for those of"
                " lm-evaluation-harness: pip install 'mergecore[tasks]'"
            )
        need("torch", "generate")
        need("transformers", "generate")
        self._quiet = quiet
        with _hushed(quiet):
            from lm_eval.tasks import TaskManager

            self._tasks = TaskManager(
                include_path=include_path, include_defaults=include_path is None
            )
        self.names = list(names)
        for name in names:
            if name not in self._tasks.all_tasks:
                raise RecipeError(
                    f"{name}: neither mergecore nor lm-evaluation-harness has such a"
                    f" task{near(name)}"
                )

    def run(
        self,
        folder: Path,
        stage: Stage,
        *,
        dtype: str | None,
        device: str | None,
        batch_size: int,
        few_shot: dict[str, int],
        limit: int | None,
        chat: bool,
        load: Load | None = None,
    ) -> list[dict[str, Any]]:
        """Runs what is not there yet, adds rows, and sums up.

        Args:
            folder: Where the model is.
            stage: Rows go here; each task's JSON lies beside it, as OUT.TASK.json.
            dtype: Of the arithmetic; the weights' own if None.
            device: For example `cuda:1`.
            batch_size: How many items at once.
            few_shot: Worked examples by task; the task's own number where it is left out.
            limit: How many items of each task, from the first.
            chat: Put prompts in the model's chat template.
            load: Gives the model, if it is not in the folder.

        Raises:
            RunError: The harness fails; the message has its reason.
        """
        found = []
        model: Any = None
        for name in self.names:
            file = stage.path.with_name(f"{stage.path.name}.{name.replace('/', '_')}.json")
            # A file without rows may come from before --overwrite.
            if any(row["id"].startswith(f"{_called(name)}/") for row in stage.done.values()):
                results = json.loads(file.read_text("utf-8")) if file.exists() else None
            else:
                results = None
            if results is None:
                with _failing(name), _hushed(self._quiet):
                    model = model or _model(folder, dtype, device, batch_size, load)
                    text = self._evaluated(model, name, few_shot.get(name), limit, chat)
                unfinished = file.with_name(file.name + ".partial")
                unfinished.write_text(text, "utf-8")
                unfinished.replace(file)
                results = json.loads(text)
            found += _added(name, results, stage)
        return found

    def _evaluated(
        self, model: Any, name: str, few_shot: int | None, limit: int | None, chat: bool
    ) -> str:
        """What the harness reports, written as it writes it."""
        from lm_eval import simple_evaluate
        from lm_eval.utils import handle_non_serializable

        results = simple_evaluate(
            model=model,
            tasks=[name],
            num_fewshot=few_shot,
            limit=limit,
            task_manager=self._tasks,
            apply_chat_template=chat,
            log_samples=True,
        )
        return json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)


def _model(
    folder: Path, dtype: str | None, device: str | None, batch_size: int, load: Load | None
) -> Any:
    from lm_eval.models.huggingface import HFLM

    device = device_of(device)
    if load is None:
        kept = {"pretrained": str(folder), "dtype": dtype or "auto"}
        return HFLM(**kept, device=device, batch_size=batch_size, trust_remote_code=False)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    model = load(dtype).to(device).eval()
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _added(name: str, results: dict[str, Any], stage: Stage) -> list[dict[str, Any]]:
    """Adds the rows of a task, or of the tasks of a group, and sums each up."""
    found = []
    for task, samples in results["samples"].items():
        first = samples[0].get("filter") if samples else None
        rows = [_row(name, task, sample) for sample in samples if sample.get("filter") == first]
        for row in rows:
            if row["id"] not in stage.done:
                stage.add(row)
        said = {"metric": rows[0]["metric"] if rows else None, "harness": results["results"][task]}
        called = _called(name) if task == name else task
        found.append({**summary(called, rows), **said})
    return found


def _row(name: str, task: str, sample: dict[str, Any]) -> Row:
    metric = next(iter(sample.get("metrics") or []), None)
    value = sample.get(metric) if metric else None
    whole = _called(name)
    within = whole if task == name else f"{whole}/{task}"
    return {
        "id": f"{within}/{sample['doc_id']}",
        "task": whole if task == name else task,
        "prediction": sample["filtered_resps"],
        "reference": sample["target"],
        # Perplexities come as sums and counts: no item has one of its own.
        "score": float(value) if isinstance(value, bool | int | float) else None,
        "metric": metric,
    }


def _called(name: str) -> str:
    """What rows call a task: one of mergecore's may have the same name."""
    return f"{HARNESS}{name}" if name in TASKS else name


@contextlib.contextmanager
def _hushed(quiet: bool) -> Iterator[None]:
    """Standard output is for results; and git and others write on standard error."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    with contextlib.redirect_stdout(sys.stderr):
        if not quiet:
            yield
            return
        kept = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)  # of this process's children too
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _failing(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of its own, of datasets, of the hub: all mean the same here
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if "unsafe" in reason:
            # It would run the code in a fork of this process, with all that this process may do.
            reason = "it runs a model's code without a sandbox; mergecore's own are in one (mbpp)"
        raise RunError(f"{name}: lm-evaluation-harness does not run it: {reason}") from error
