"""What is done for one configuration? Merge, answers, tasks, rewards, verdicts: what is not there.

Each result lies in the run's folder under its address (`address.py`), beside a note of how it was
made. A stage that was killed goes on where it was; one whose note says that it is whole is passed
over.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from mergecore import many, merging, streaming
from mergecore import recipe as recipes
from mergecore._mergecore import free_space
from mergecore.errors import MergecoreError, ModelError, ModelNotFoundError, RunError
from mergecore.evaluate import generate, loading, reward, rows, sanity, stage, verdicts
from mergecore.evaluate.backends import Backend, NotTakenError
from mergecore.evaluate.evaluation import once
from mergecore.evaluate.rows import Row
from mergecore.evaluate.tasks import GROUPS, HARNESS
from mergecore.evaluate.tasks.request import Prepared, Request
from mergecore.merging import MergeReport
from mergecore.models import hub
from mergecore.streaming import Stream
from mergecore.study import address, forecast, serving
from mergecore.study.serving import Serving, Subject
from mergecore.study.spec import Configuration, Loading, Sweep

Announce = Callable[[str], Any]


class Work:
    """A sweep and the folder of its results."""

    def __init__(self, sweep: Sweep, run: Path, judge: verdicts.Judge | None = None) -> None:
        """Reads the prompts.

        Args:
            sweep: What is to be run.
            run: The folder.
            judge: Who judges, if anybody is to.

        Raises:
            MergecoreError: They cannot be read, or the reward model is not to be had.
        """
        self.sweep, self.run, self.judge = sweep, run, judge
        self.serving = Serving(self._distrust)
        self.distrusted: dict[str, str] = {}
        """Why answers were deleted, by the address of the weights: the engine that gave them has
        lost what it was given."""
        self._streams = sweep.stream
        answers = sweep.answers
        every = rows.prompts(answers.prompts) if answers else []
        self.prompts = every[: answers.limit] if answers else []
        self._addresses: dict[str, str] = {}
        self._deciding: dict[str, tuple[Any, ...]] = {}
        if answers is not None:
            by = answers.loading
            self._deciding["answers"] = (
                address.of(every), *_of_loading(by), answers.decoding.as_dict(),
            )  # fmt: skip
        if sweep.rewards is not None:
            place = hub.locate(sweep.rewards.model, quiet=True)
            self._of_scorer = address.of_folder(str(place.resolve()))
            self._deciding["rewards"] = (self._of_scorer, *_of_loading(sweep.rewards.loading))
        if judge is not None:
            url = sweep.judging.url if sweep.judging else None
            self._deciding["verdicts"] = (judge.about(), url)
        self._of_data: dict[str, str] = {}
        self._of_tasks: dict[str, Any] = {}
        if sweep.tasks is not None:
            self._check_tasks(sweep.tasks)
            given = sweep.tasks.get("data", {})
            self._of_data = {name: address.of_file(path) for name, path in given.items()}
            self._of_tasks = address.settings(sweep.tasks)

    def weights(self, configuration: Configuration) -> str:
        """The address of its weights."""
        known = self._addresses
        if configuration.name not in known:
            known[configuration.name] = address.of_weights(configuration)
        return known[configuration.name]

    def answers(self, configuration: Configuration) -> Path | None:
        """The file of its answers; None if there are to be none, and so with the others."""
        return self._file("answers", self.weights(configuration))

    def rewards(self, configuration: Configuration) -> Path | None:
        """The file of its rewards."""
        return self._of_answers("rewards", configuration)

    def verdicts(self, configuration: Configuration) -> Path | None:
        """The file of its verdicts."""
        return self._of_answers("verdicts", configuration)

    def tasks(self, configuration: Configuration) -> Path | None:
        """The file of its rows of tasks."""
        said = self._tasks_of(configuration)
        if said is None:
            return None
        data = {name: self._of_data[name] for name in said.get("data", {})}
        settings = dict(self._of_tasks)
        settings |= {key: said[key] for key in ("names", "few_shot") if key in said}
        settings.pop("data", None)  # where the rows lie is no part of it
        return self._place("tasks", self.weights(configuration), (settings, data))

    def merge(self, configuration: Configuration) -> Path | None:
        """The file that tells of its merge."""
        if configuration.model is not None:
            return None
        return self.run / "merges" / f"{self.weights(configuration)}.json"

    def make(self, configuration: Configuration, tell: Announce) -> None:
        """Merges it, and does what its weights are needed for; then they are deleted.

        Raises:
            MergecoreError: As the merge and the stages say.
        """
        if not self.needs_weights(configuration):
            return
        try:
            self._make(configuration, tell)
        except NotTakenError as error:
            # What no running engine takes may still be loaded from a folder.
            tell(f"{error}: merged into folders from here on")
            self._streams = False
            self._make(configuration, tell)

    def _make(self, configuration: Configuration, tell: Announce) -> None:
        answers, merge = self.answers(configuration), self.merge(configuration)
        with self._subject(configuration, tell) as subject:
            if answers is not None and not self.is_whole(answers, self.prompts):
                tell("answers")
                self._answer(subject, configuration, answers, tell)
            if self.serving.engine is None:  # two at a time may not fit into a GPU
                self._test_if_wanted(subject, configuration, tell)
                if merge is not None and not merge.exists() and subject.merged is not None:
                    collections.deque(subject.merged(), maxlen=0)  # for what its report says

    def test(self, configuration: Configuration, tell: Announce) -> None:
        """Gives it the tasks that had to wait until vLLM was done with the answers of all.

        Raises:
            MergecoreError: As the merge and the stage say.
        """
        tasks = self.tasks(configuration)
        if tasks is not None and not self.is_whole(tasks):
            self.serving.retire(tell)
            with self._subject(configuration, tell) as subject:
                self._test_if_wanted(subject, configuration, tell)

    def _distrust(self, addresses: Sequence[str], reason: str) -> None:
        for weights in addresses:
            self.distrusted[weights] = f"{reason}, with stream: false"
            file = self._file("answers", weights)
            if file is not None:
                _note(file).unlink(missing_ok=True)
                file.unlink(missing_ok=True)

    def _check_answered(self, configuration: Configuration) -> None:
        """What was deleted, or is another process's, is not scored as if nothing had been said."""
        file = self.answers(configuration)
        if file is not None and not self.is_whole(file, self.prompts):
            raise RunError("its answers are not there, or not whole: run it again")

    def streams(self, configuration: Configuration) -> bool:
        """Whether a configuration's merge is written nowhere: one document, and not kept."""
        return self._streams and not self.sweep.keep and len(configuration.recipe) == 1

    def merge_ahead(self, configurations: Sequence[Configuration], tell: Announce) -> None:
        """Merges the first of these, and the next that share its models, in one reading of them.

        Only what `together` of the sweep and half of the free disk allow. What cannot be merged is
        left for `make`, whose configuration says why.
        """
        most = self.sweep.together
        if most < 2 or not self._can_wait(configurations[0]):
            return
        first = configurations[0]
        found = {self.weights(first): first}
        for configuration in configurations[1:]:
            if len(found) >= most:
                break
            if set(configuration.parents) & set(first.parents) and self._can_wait(configuration):
                found.setdefault(self.weights(configuration), configuration)
        if len(found) < 2:
            return
        try:
            _, size, _ = forecast.planned(first)
        except MergecoreError:
            return
        room = free_space(str(self.run.absolute())) // 2 // max(size, 1)
        found = dict(itertools.islice(found.items(), room))
        if len(found) < 2:
            return
        requests = [self._request(c, address) for address, c in found.items()]
        folders = [self.run / "weights" / name for name in found]
        tell(f"merge, and the next {len(found) - 1}")
        begun = time.perf_counter()
        try:
            reports = many.merge_many(requests, folders, overwrite=True)
        except Exception as error:  # `make` tries each alone, and says whose fault it is
            tell(f"merged one by one, as together they cannot be: {in_one_line(error)}")
            return
        seconds = (time.perf_counter() - begun) / len(reports)
        for report, (_, configuration) in zip(reports, found.items(), strict=True):
            about = self.merge(configuration)
            assert about is not None
            _write(about, json.dumps({**asdict(report), "seconds": seconds}))

    def _can_wait(self, configuration: Configuration) -> bool:
        """Whether its weights are needed, are not there, and are made by a single document."""
        try:
            folder = self.run / "weights" / self.weights(configuration)
            return (
                not self.streams(configuration)
                and len(configuration.recipe) == 1
                and self.needs_weights(configuration)
                and not (folder / "mergecore.json").exists()
            )
        except MergecoreError:
            return False  # its models are not to be had; `make` says so

    def needs_weights(self, configuration: Configuration) -> bool:
        """Whether something is left to do for which the model must be there."""
        answers, tasks = self.answers(configuration), self.tasks(configuration)
        merge = self.merge(configuration)
        folder = self.run / "weights" / self.weights(configuration)
        return (
            (answers is not None and not self.is_whole(answers, self.prompts))
            or (tasks is not None and not self.is_whole(tasks))
            or (merge is not None and not merge.exists())
            or (merge is not None and self.sweep.keep and not folder.exists())
        )

    def score(self, configuration: Configuration, tell: Announce) -> None:
        """Rewards its answers. The reward model is loaded once for all."""
        said, file = self.sweep.rewards, self.rewards(configuration)
        if said is None or file is None or self.is_whole(file, self.prompts):
            return
        tell("rewards")
        self._check_answered(configuration)
        make, about = self._scorer
        answered = self.rows(self.answers(configuration))
        size = said.loading.batch_size
        with self._noted(file, self.prompts):
            reward.reward(answered, said.model, file, make, batch_size=size, about=about)

    def judge_it(self, configuration: Configuration, tell: Announce) -> None:
        """Judges its answers."""
        file = self.verdicts(configuration)
        if self.judge is None or file is None or self.is_whole(file, self.prompts):
            return
        tell("verdicts")
        self._check_answered(configuration)
        with self._noted(file, self.prompts):
            verdicts.judge_all(self.rows(self.answers(configuration)), file, self.judge)

    def rows(self, file: Path | None) -> list[Row]:
        """The rows of a stage that are of these prompts, in their order; none if it was not run."""
        if file is None or not file.exists() or not file.stat().st_size:
            return []
        known = rows.by_id(rows.read(file))
        return [known[row["id"]] for row in self.prompts if row["id"] in known]

    def note(self, file: Path | None) -> dict[str, Any]:
        """How a result was made; empty if it is not whole."""
        if file is None:
            return {}
        place = file if file.suffix == ".json" else _note(file)
        found: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {}
        return found

    def is_whole(self, file: Path, wanted: Sequence[Row] = ()) -> bool:
        """Whether a stage was done to its end, for these prompts."""
        done: int = self.note(file).get("rows", -1)
        return done >= len(wanted)

    def _of_answers(self, stage: str, configuration: Configuration) -> Path | None:
        answers = self.answers(configuration)
        return None if answers is None else self._file(stage, answers.stem)

    def _file(self, stage: str, of: str) -> Path | None:
        """Where a stage's rows of something lie, by that and all else that decides them."""
        deciding = self._deciding.get(stage)
        return None if deciding is None else self._place(stage, of, deciding)

    def _place(self, stage: str, of: str, deciding: tuple[Any, ...]) -> Path:
        return self.run / stage / f"{address.of(stage, of, *deciding)}.jsonl"

    def _tasks_of(self, configuration: Configuration) -> dict[str, Any] | None:
        """What it is tested by: the sweep's request for those tasks that it is given."""
        said, own = self.sweep.tasks, configuration.tasks
        if said is None or own == ():
            return None
        if own is None:
            return said
        of_group = {group for group, parts in GROUPS.items() if set(parts) & set(own)}
        wanted = {*own, *of_group, *(name.partition(":")[0] for name in own), ""}
        wanted |= {name.removeprefix(HARNESS) for name in own}
        by_task: dict[str, Any] = {
            key: {name: value for name, value in said[key].items() if name in wanted}
            for key in ("data", "few_shot")
            if key in said
        }
        return {**said, **by_task, "names": list(own)}

    @cached_property
    def _scorer(self) -> loading.Made:
        """The reward model, loaded once for all."""
        said = self.sweep.rewards
        assert said is not None
        by = said.loading
        own = (by.backend, by.dtype, by.device, by.chat_template, True)
        make, about = loading.scorer_of(said.model, *own)
        # Copied or fetched again, it is the same.
        return once(make), {**about, "weights": self._of_scorer}

    @contextlib.contextmanager
    def _subject(self, configuration: Configuration, tell: Announce) -> Iterator[Subject]:
        if configuration.model is not None:
            place = hub.locate(configuration.model, quiet=True)
            yield Subject(configuration.name, self.weights(configuration), place)
        elif self.streams(configuration):
            yield self._merged_into_memory(configuration, tell)
        else:
            with self._weights(configuration, tell) as folder:
                yield Subject(configuration.name, folder.name, folder)
        if not gc.get_freeze_count():
            # What is there now, modules above all, is not looked through again until the sweep's
            # end: that takes 0.2 s, a sixth of a small model's time.
            gc.freeze()

    def _merged_into_memory(self, configuration: Configuration, tell: Announce) -> Subject:
        request = self._request(configuration, self.weights(configuration))
        prepared = streaming.prepared(request)
        about = self.merge(configuration)
        assert about is not None

        def note(report: MergeReport) -> None:
            _write(about, json.dumps(asdict(report)))

        def merged() -> Stream:
            tell("merge")
            return Stream(prepared, "pt", tell=note)

        folder = serving.write_side_files(prepared, self.run / "weights")
        weights, summary = self.weights(configuration), prepared.summary
        embedding = lambda: summary["vocabulary_rows"]  # noqa: E731
        return Subject(configuration.name, weights, folder, merged, embedding)

    @contextlib.contextmanager
    def _weights(self, configuration: Configuration, tell: Announce) -> Iterator[Path]:
        folder = self.run / "weights" / self.weights(configuration)
        about = self.merge(configuration)
        assert about is not None
        if not (about.exists() and (folder / "mergecore.json").exists()):
            tell("merge")
            _write(about, json.dumps(self._merge(configuration, folder)))
        try:
            yield folder
        except KeyboardInterrupt:
            raise  # it goes on from here
        except BaseException:
            self._drop(folder)
            raise
        self._drop(folder)

    def _merge(self, configuration: Configuration, folder: Path) -> dict[str, Any]:
        request = self._request(configuration, folder.name)
        begun = time.perf_counter()
        report = merging.run(request, folder, overwrite=folder.exists())
        # With the documents that were made on the way.
        return {**asdict(report), "seconds": time.perf_counter() - begun}

    def _request(self, configuration: Configuration, name: str) -> Path:
        """The recipe as a file."""
        request = self.run / "recipes" / f"{name}.yml"
        documents = [recipes.to_yaml(document) for document in configuration.recipe]
        _write(request, "---\n".join(documents))
        return request

    def _drop(self, folder: Path) -> None:
        gc.collect()
        if not self.sweep.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def _answer(
        self, subject: Subject, configuration: Configuration, file: Path, tell: Announce
    ) -> None:
        said = self.sweep.answers
        assert said is not None
        by = said.loading
        sanity.check(subject.folder, configuration.name, by.chat_template, subject.embedding)
        start, about = loading.backend_of(
            str(subject.folder), None, by.batch_size, True,
            backend=by.backend, dtype=by.dtype, device=by.device, chat_template=by.chat_template,
            load=subject.merged and subject.load, merged=subject.merged,
        )  # fmt: skip
        about["weights"] = self.weights(configuration)  # merged again, they are the same

        def make() -> Backend:
            return self.serving.backend(subject, start, tell)

        asked = (self.weights(configuration), self.prompts, file, make, said.decoding)
        with self._noted(file, self.prompts) as note:
            try:
                generate.generate(*asked, about=about)
            except generate.UnansweredError as error:
                # One prompt that is too long must not cost the figures of all others.
                note["warning"] = str(error)
                tell(f"warning: {error}")

    def _check_tasks(self, said: dict[str, Any]) -> None:
        """What is wrong with tasks, packages and rows is said before the first merge."""
        first = self.sweep.configurations[0]
        reference = first.model or next(iter(first.parents), None)
        if reference is None:
            return  # a recipe without models, which is refused as such
        # A model that is not to be had is that configuration's failure alone.
        with contextlib.suppress(ModelError, ModelNotFoundError):
            Prepared(Request(reference, quiet=True, **said))

    def _test_if_wanted(
        self, subject: Subject, configuration: Configuration, tell: Announce
    ) -> None:
        file, said = self.tasks(configuration), self._tasks_of(configuration)
        if file is None or said is None or self.is_whole(file):
            return
        tell("tasks")
        request = Request(str(subject.folder), out=str(file), quiet=True, **said)
        with self._noted(file) as note:
            prepared = Prepared(request, subject.load if subject.merged else None)
            # Wherever it lies, and whether it does, it is the same model.
            own = self.weights(configuration)
            tested = prepared.run(about={"weights": own, "model": own})
            note["tasks"] = tested.tasks

    @contextlib.contextmanager
    def _noted(self, file: Path, wanted: Sequence[Row] = ()) -> Iterator[dict[str, Any]]:
        """Writes beside a result that it is whole, once it is."""
        begun = time.perf_counter()
        note: dict[str, Any] = {"rows": len(wanted)}
        file.parent.mkdir(parents=True, exist_ok=True)
        yield note
        note["seconds"] = time.perf_counter() - begun
        _write(_note(file), json.dumps(note))


def in_one_line(error: BaseException) -> str:
    """What went wrong, with the kind of an error that is none of ours."""
    words = " ".join(str(error).split())[:500]
    return words if isinstance(error, MergecoreError) else f"{type(error).__name__}: {words}"


def _of_loading(by: Loading) -> tuple[Any, ...]:
    """What of a model's loading decides what comes out."""
    return loading.chosen_backend(by.backend), address.settings(asdict(by))


def _note(file: Path) -> Path:
    return file.with_suffix(".note.json")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    stage.replace(file, text.encode())
