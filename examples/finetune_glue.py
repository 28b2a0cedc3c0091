"""Fine-tunes a base on GLUE's tasks, one model a task: the models of the study of collapse.

    python examples/finetune_glue.py --base Qwen/Qwen2.5-3B --out glue/qwen2.5-3b [--lora 16]
        [--tasks cola,rte] [--data DIR] [--limit N] [--epochs 3] [--rate 1e-5] [--batch 16]

Cao et al. (arXiv:2603.09463) did not publish theirs, nor how they were trained: these are one way.
Each task is asked as `mergecore tasks` asks it, so that training and test agree. Decoder-only and
encoder-decoder bases both go; --lora R trains an adapter of rank R and merges it before saving.
Beside the models, GLUE/data/TASK.jsonl are the validation rows, and GLUE/probes.jsonl five texts
of each task's training rows (GLUE is the folder that --out is in): what the study reads.
A folder that is complete is not trained again. Rows come from the hub (nyu-mll/glue), or from
DIR/train/TASK.tsv and DIR/validation/TASK.tsv (.jsonl, .csv and .parquet go, too).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergecore.evaluate.tasks import data, glue
from mergecore.evaluate.tasks.task import Choice, Task

TASKS: dict[str, Task] = {task.name: task for task in glue.TASKS}
PROBES = 5
ENDINGS = (".tsv", ".jsonl", ".csv", ".parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", required=True, help="a folder or hub id")
    parser.add_argument("--out", type=Path, required=True, help="where the models go: OUT/TASK")
    parser.add_argument("--tasks", default=",".join(sorted(TASKS)), help="[all eight]")
    parser.add_argument("--data", type=Path, help="a folder of rows  [the hub's]")
    parser.add_argument("--limit", type=int, help="only so many training rows a task")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rate", type=float, help="[1e-5; with --lora 2e-4]")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=512, help="the most tokens of a row  [512]")
    parser.add_argument("--lora", type=int, metavar="R", help="train an adapter of this rank")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    names = options.tasks.split(",")
    if odd := sorted(set(names) - set(TASKS)):
        parser.error(f"no such task: {', '.join(odd)}; there are {', '.join(sorted(TASKS))}")
    for name in names:
        write_rows(name, options.out.parent, options.data)
        folder = options.out / name
        if (folder / "config.json").exists():
            print(f"{name}: is there", flush=True)
            continue
        train(name, folder, options)
    write_probes(options.out.parent, options.data, options.seed)


def rows(name: str, split: str, given: Path | None) -> list[dict[str, Any]]:
    """GLUE's rows of a task."""
    if given is not None:
        places = [given / split / f"{name}{ending}" for ending in ENDINGS]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise SystemExit(f"{places[0]}: is not there, nor .jsonl, .csv or .parquet")
        return data.read(found, *TASKS[name].needs)
    from huggingface_hub import hf_hub_download

    part = "validation_matched" if (name, split) == ("mnli", "validation") else split
    file = f"{name}/{part}-00000-of-00001.parquet"
    return data.read(hf_hub_download("nyu-mll/glue", file, repo_type="dataset"), *TASKS[name].needs)


def items(name: str, found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each row as the text that comes before the answer, and the answer."""
    asked = TASKS[name].ask(found, 0, True)
    return [
        (item.text, item.words[item.labels.index(item.reference)])
        for item in asked
        if isinstance(item, Choice)
    ]


def train(name: str, folder: Path, options: argparse.Namespace) -> None:
    """One model, saved whole: the folder is there when it is done."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer, Trainer, TrainingArguments

    transformers.set_seed(options.seed)
    pairs = items(name, rows(name, "train", options.data))
    random.Random(options.seed).shuffle(pairs)
    pairs = pairs[: options.limit]
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = AutoConfig.from_pretrained(options.base)
    kind = (
        transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    model: Any = kind.from_pretrained(options.base, dtype=torch.float32)
    kept = getattr(config, "dtype", None)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        purpose = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
        wanted = LoraConfig(
            r=options.lora, lora_alpha=2 * options.lora, target_modules="all-linear",
            task_type=purpose,
        )  # fmt: skip
        model = get_peft_model(model, wanted)
    encode = encode_pair if config.is_encoder_decoder else encode_text
    examples = [encode(tokenizer, text, word, options.length) for text, word in pairs]
    work = folder.with_name(f"{folder.name}.partial")
    settings = TrainingArguments(
        output_dir=str(work / "trainer"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch,
        learning_rate=options.rate or (2e-4 if options.lora else 1e-5),
        lr_scheduler_type="cosine",
        bf16=torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        seed=options.seed,
        disable_tqdm=True,
    )
    collate = transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
    trainer = Trainer(model=model, args=settings, train_dataset=examples, data_collator=collate)  # type: ignore[arg-type]
    done = trainer.train()
    if options.lora:
        model = model.merge_and_unload()
    model.to(kept if isinstance(kept, torch.dtype) else torch.bfloat16)
    shutil.rmtree(work, ignore_errors=True)
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    (work / "README.md").write_text(f"---\nbase_model: {options.base}\n---\n\n{name} of GLUE\n")
    work.rename(folder)
    print(f"{name}: {len(examples):,} rows, loss {done.training_loss:.3f}", flush=True)


def encode_text(tokenizer: Any, text: str, word: str, length: int) -> dict[str, list[int]]:
    """A decoder reads text and answer as one; only the answer and its end are learned."""
    before = tokenizer(text)["input_ids"]
    whole = [*tokenizer(f"{text} {word}")["input_ids"], tokenizer.eos_token_id]
    shared = next(
        (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before)
    )
    cut = max(0, len(whole) - length)  # from the front: the question stands at the end
    labels = [-100] * shared + whole[shared:]
    return {"input_ids": whole[cut:], "labels": labels[cut:]}


def encode_pair(tokenizer: Any, text: str, word: str, length: int) -> dict[str, list[int]]:
    """An encoder reads the text, the decoder writes the answer and its end."""
    read = tokenizer(text)["input_ids"][-length:]
    said = tokenizer(word, add_special_tokens=False)["input_ids"]
    return {"input_ids": read, "labels": [*said, tokenizer.eos_token_id]}


def write_rows(name: str, glue_folder: Path, given: Path | None) -> None:
    """The validation rows, where the study looks for them."""
    file = glue_folder / "data" / f"{name}.jsonl"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(name, "validation", given)]
    file.write_text("\n".join(lines) + "\n", "utf-8")


def write_probes(glue_folder: Path, given: Path | None, seed: int) -> None:
    """A few texts of each task, whose hidden states are compared."""
    found = []
    for name in sorted(TASKS):
        try:
            pairs = items(name, rows(name, "train", given))
        except SystemExit:
            continue  # of the tasks that were not asked for there may be no rows
        chosen = random.Random(f"{seed}/{name}").sample(pairs, min(PROBES, len(pairs)))
        found += [
            {"id": f"{name}-{i}", "text": f"{text} {word}", "task": name}
            for i, (text, word) in enumerate(chosen)
        ]
    lines = [json.dumps(row, ensure_ascii=False) for row in found]
    (glue_folder / "probes.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
