"""Fine-tuning by transformers' Trainer, measured as `finetuning_speed.py` measures ours; prints one JSON object.

The network is GPT2ForSequenceClassification from the converted folder, with sdpa; the tokenizer is the folder's. Texts
become `<s> text </s>`, cut as ours, and a batch is filled up to its longest row (DataCollatorWithPadding). AdamW, rate,
schedule, weight decay and clipping are ours; bfloat16 is Trainer's own `bf16=True`. Nothing is saved.

`--sampling random` is Trainer's default, `group_by_length` its way to put rows of similar length into a batch.

With --test the rows of that file are answered after the training, and their accuracy is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import Clock, peak_memory_mb
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    GPT2ForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

LOG_STEPS = 20  # as ours


class TakesTurns(TrainerCallback):
    """Makes each step a turn: from one step's begin to the next one's, so that what is between them counts too."""

    def __init__(self, clock: Clock):
        self._clock = clock

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._clock.next_turn()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._clock.end()


class CountingCollator:
    """DataCollatorWithPadding, and how many tokens each batch has with its padding."""

    def __init__(self, tokenizer: Any):
        self._collate, self.sizes = DataCollatorWithPadding(tokenizer), []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collate(rows)
        self.sizes.append(batch["input_ids"].numel())
        return batch


def read_rows(path: Path, tokenizer: Any, length: int) -> list[dict[str, Any]]:
    """The rows of a file, a JSON object with text and label a line, as tokens."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = tokenizer([row["text"] for row in rows], add_special_tokens=False)["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return [{"input_ids": [begin, *ids[: length - 2], end], "labels": row["label"]} for ids, row in zip(found, rows)]


def arguments_of(arguments: argparse.Namespace, work: str) -> TrainingArguments:
    limit = {"max_steps": arguments.steps} if arguments.steps else {"num_train_epochs": 1}
    return TrainingArguments(
        work,
        **limit,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup_steps=arguments.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=arguments.weight_decay,
        adam_epsilon=arguments.epsilon,
        max_grad_norm=arguments.clip_norm,
        train_sampling_strategy=arguments.sampling,
        bf16=arguments.precision == "bfloat16",
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=LOG_STEPS,
        report_to="none",
        disable_tqdm=True,
    )


def fine_tune(arguments: argparse.Namespace) -> dict[str, Any]:
    """Loads, trains, and with --test answers."""
    began = time.perf_counter()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = GPT2ForSequenceClassification.from_pretrained(
        arguments.folder, num_labels=arguments.labels, attn_implementation="sdpa"
    )
    train = read_rows(arguments.train, tokenizer, arguments.length)
    clock, collator = Clock(), CountingCollator(tokenizer)
    trainer = Trainer(
        model,
        arguments_of(arguments, str(arguments.train.parent / "trainer")),
        train_dataset=train,
        data_collator=collator,
        callbacks=[] if arguments.test else [TakesTurns(clock)],
    )
    trainer.remove_callback(PrinterCallback)  # its lines would be taken for the result
    done = trainer.train()
    result = {
        "steps": done.global_step,
        "loss": done.training_loss,
        "step_seconds": clock.seconds,
        "padded_tokens": collator.sizes,
        "ids": checksum(train),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dropout": model.config.resid_pdrop,
        "precision": arguments.precision,
        "peak_memory_mb": peak_memory_mb(),
    }
    if arguments.test:
        from sklearn.metrics import accuracy_score

        trained = time.perf_counter() - began
        test = read_rows(arguments.test, tokenizer, arguments.length)
        logits = trainer.predict(test).predictions
        result["score"] = float(accuracy_score([row["labels"] for row in test], logits.argmax(axis=-1)))
        result["train_seconds"], result["all_seconds"] = trained, time.perf_counter() - began
    return result


def checksum(rows: list[dict[str, Any]]) -> list[int]:
    """Tokens of all rows, and the sum of their ids: the same as ours if the rows are."""
    ids = np.concatenate([row["input_ids"] for row in rows])
    return [len(ids), int(ids.sum())]


def main() -> None:
    """Runs the command line that finetuning_speed.py makes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the converted network")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--steps", type=int, default=0, help="0: one epoch")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--sampling", choices=("random", "group_by_length"), default="random")
    parser.add_argument("--threads", type=int, required=True)
    for name in ("length", "batch-size", "labels"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("learning-rate", "warmup-ratio", "weight-decay", "epsilon", "clip-norm"):
        parser.add_argument(f"--{name}", type=float, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(fine_tune(arguments)))


if __name__ == "__main__":
    main()
