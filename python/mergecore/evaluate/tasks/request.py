"""What tests were asked for, and can they be run? What is wrong is said before a model loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergecore.errors import RecipeError
from mergecore.evaluate import tasks as registry
from mergecore.evaluate.backends import need
from mergecore.evaluate.backends.transformers import Load, Transformers
from mergecore.evaluate.chat import PLAIN
from mergecore.evaluate.stage import Stage
from mergecore.evaluate.tasks import data, run, sandbox
from mergecore.evaluate.tasks.harness import Harness
from mergecore.evaluate.tasks.run import Asked, Tested
from mergecore.evaluate.tasks.task import Task
from mergecore.models import hub

OWN = "own"
"""The model's own chat template, also where choices and the harness are asked without one."""


@dataclass(frozen=True)
class Request:
    """The options of `mergecore tasks`."""

    model: str
    names: list[str]
    data: dict[str, str] = field(default_factory=dict)
    """Files by task, folders by group."""
    out: str | None = None
    limit: int | None = None
    few_shot: dict[str, int] = field(default_factory=dict)
    """By task; under the empty name for every task."""
    chat_template: str | None = None
    max_tokens: int | None = None
    length_normalized: bool = False
    batch_size: int = 8
    dtype: str | None = None
    device: str | None = None
    allow_code_execution: bool = False
    include_path: str | None = None
    overwrite: bool = False
    quiet: bool = False


class Prepared:
    """A request that can be run."""

    def __init__(self, request: Request, load: Load | None = None) -> None:
        """Looks up tasks, packages, rows and the model.

        Args:
            request: The options.
            load: Gives the model, if its folder has no weights.

        Raises:
            RecipeError: Something in the request is wrong, or not to be had.
            MergecoreError: As `hub.locate` says of the model.
        """
        self.request, self._load = request, load
        self.native, self.others = registry.chosen(request.names)
        self._check_names()
        need("torch", "generate")
        need("transformers", "generate")
        for task in self.native:
            self._check(task)
        self.harness = self._harness() if self.others else None
        self.asked: list[Asked] = []
        self._about: dict[str, Any] = {}
        for task in self.native:
            self._ask(task)
        self.folder = hub.locate(request.model, quiet=request.quiet)

    def run(
        self,
        *,
        about: dict[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tested:
        """Does it.

        Args:
            about: What else decides the rows, for the record.
            progress: Called with mergecore's own items that are done and all of them.

        Raises:
            MergecoreError: As `assess` says.
        """
        request = self.request
        return run.assess(
            request.model,
            self.asked,
            request.out or f"{Path(request.model).name}-tasks.jsonl",
            self._backend,
            {**self._settings(), **(about or {})},
            max_tokens=request.max_tokens,
            chat=request.chat_template not in (None, PLAIN),
            normalized=request.length_normalized,
            overwrite=request.overwrite,
            others=self._run_harness if self.harness else None,
            progress=progress,
        )

    def _check_names(self) -> None:
        native = {task.name for task in self.native}
        groups = {name for name, parts in registry.GROUPS.items() if native & set(parts)}
        kinds = {name.partition(":")[0] for name in native}
        for option, known, given in (
            ("--data", native | groups | kinds, self.request.data),
            ("--few-shot", native | {"", *self.others}, self.request.few_shot),
        ):
            for name in given:
                if name not in known:
                    raise RecipeError(f"{option}: {name} is not among mergecore's own --tasks")

    def _check(self, task: Task) -> None:
        for package in task.packages:
            need(package, "tasks")
        if task.runs_code:
            if not self.request.allow_code_execution:
                raise RecipeError(
                    f"{task.name} runs code that the model writes; --allow-code-execution allows"
                    " it, in a sandbox"
                )
            sandbox.check()

    def _harness(self) -> Harness:
        request = self.request
        if request.chat_template not in (None, OWN, PLAIN):
            raise RecipeError(
                f"{self.others[0]} is run by lm-evaluation-harness, which knows no --chat-template"
                f" but {OWN} and {PLAIN}"
            )
        return Harness(self.others, request.include_path, quiet=request.quiet)

    def _ask(self, task: Task) -> None:
        shots = self._shots(task)
        found = data.load(task, self.request.data)
        plain = self.request.chat_template == PLAIN
        entry = run.ask(task, found.rows, shots, plain=plain, limit=self.request.limit)
        self.asked.append(entry)
        self._about[task.name] = {"few_shot": shots, "data": found.digest}

    def _shots(self, task: Task) -> int:
        given = self.request.few_shot
        shots = given.get(task.name, given.get("", task.usual_examples))
        if shots > task.examples:
            most = f"at most {task.examples}" if task.examples else "no"
            raise RecipeError(f"--few-shot {shots}: {task.name} has {most} worked examples")
        return shots

    def _shots_of_harness(self) -> dict[str, int]:
        given = self.request.few_shot
        named = {name: given.get(name, given.get("")) for name in self.others}
        return {name: shots for name, shots in named.items() if shots is not None}

    def _settings(self) -> dict[str, Any]:
        request = self.request
        return {
            "model": request.model,
            "tasks": self._about,
            # A higher limit only adds rows, but to the harness, whose figures are of all of them.
            "harness": {
                "tasks": self.others,
                "limit": request.limit,
                "few_shot": self._shots_of_harness(),
            }
            if self.others
            else None,
            "dtype": request.dtype or "auto",
            "chat_template": request.chat_template,
            "max_tokens": request.max_tokens,
            "length_normalized": request.length_normalized,
        }

    def _backend(self) -> Transformers:
        request = self.request
        template = None if request.chat_template == OWN else request.chat_template
        if request.chat_template is None and all(task.score is None for task in self.native):
            template = PLAIN  # a model that does not chat can still choose
        return Transformers(
            self.folder,
            request.model,
            template=template,
            dtype=request.dtype,
            device=request.device,
            batch_size=request.batch_size,
            model=self._load,
        )

    def _run_harness(self, stage: Stage) -> list[dict[str, Any]]:
        assert self.harness is not None
        request = self.request
        return self.harness.run(
            self.folder,
            stage,
            dtype=request.dtype,
            device=request.device,
            batch_size=request.batch_size,
            few_shot=self._shots_of_harness(),
            limit=request.limit,
            chat=request.chat_template == OWN,
            load=self._load,
        )
