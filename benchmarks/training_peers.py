"""Training steps of transformers' GPT-2, measured as `training_speed.py` measures ours; prints one JSON object.

    python benchmarks/training_peers.py --shape 2x256 --precision bfloat16 [--compile] [--dropout 0]

The peer is GPT2LMHeadModel, set up for speed on a CPU. It does the work of our step:

- attention by scaled_dot_product_attention, the erf GELU, dropout on embeddings, attention weights and both outputs;
  no cache of keys and values, which the class would keep in training too;
- bfloat16 by torch.autocast, float32 masters, cross-entropy in float32 over all positions;
- torch's fused AdamW, no decay on biases and LayerNorm, as ours;
- the global gradient norm and clipping at 1.0, as ours: clip_grad_norm_ with foreach. It scales every gradient, also
  by 1, while our optimizer applies the factor on its way; `seconds_of` shows what that costs;
- the loss is read in every step.

Tried at 2 x 256 in bfloat16, CPU time of a step on one thread of a Xeon with AMX, three rounds, median:
zero_grad(set_to_none=True) 2.09 s, filling with zeros 3.27 s; clip_grad_norm_ with foreach=True 2.09 s, False 2.12 s,
None 2.15 s. `--compile` is torch.compile over model and loss together, static shapes; its compile time falls into the
warm-up steps and is reported separately; its peak memory includes compiling.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

import torch
from contestants import peak_memory_mb, wait_for_turn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

CLIP_NORM = 1.0


class LossOf(torch.nn.Module):
    """A network and its loss as one module, so that torch.compile sees both."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of tokens (batch_size, seq_length + 1): labels are all but the first."""
        logits = self.model(input_ids=tokens[:, :-1]).logits  # (batch_size, seq_length, vocab_size)
        return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def new_model(sizes: dict[str, Any]) -> GPT2LMHeadModel:
    """A network with random weights, of the sizes of a recipe's model section."""
    logging.set_verbosity_error()
    dropout = sizes["dropout"]
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=sizes["vocab_size"],
            n_positions=sizes["max_length"],
            n_embd=sizes["units"],
            n_layer=sizes["num_layers"],
            n_head=sizes["num_heads"],
            activation_function="gelu",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            attn_implementation="sdpa",
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def new_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": 0.01},
        {"params": [parameter for parameter in parameters if parameter.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-4, eps=1e-6, fused=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Warm-up steps, then timed ones."""
    began = time.perf_counter()
    batch_size, seq_length = arguments.shape
    sizes = json.loads(arguments.model)
    torch.manual_seed(0)
    model = new_model({**sizes, "dropout": sizes["dropout"] if arguments.dropout is None else arguments.dropout})
    model.config.use_cache = False
    model.train()
    loss_of = LossOf(model)
    if arguments.compile:
        loss_of = torch.compile(loss_of, dynamic=False)
    optimizer = new_optimizer(model)
    parameters = list(model.parameters())
    tokens = torch.randint(sizes["vocab_size"], (arguments.warmup + arguments.steps, batch_size, seq_length + 1))
    laps: list[list[float]] = []
    for batch in tokens:
        wait_for_turn()
        clock = [time.perf_counter()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            loss = loss_of(batch)
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM, foreach=True)
        clock.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last_loss = loss.item()
        clock.append(time.perf_counter())
        laps.append([after - before for before, after in zip(clock, clock[1:])])
    timed = laps[arguments.warmup :]
    seconds = [sum(lap) for lap in timed]
    parts = zip(("forward", "backward", "clip", "optimizer"), zip(*timed))
    median = statistics.median(seconds)
    warm_up = sum(sum(lap) for lap in laps[: arguments.warmup])
    return {
        "tokens_per_second": batch_size * seq_length / median,
        "peak_memory_mb": peak_memory_mb(),
        "precision": arguments.precision,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "loss": last_loss,
        "step_seconds": seconds,
        "seconds_of": {name: statistics.median(values) for name, values in parts},
        "start_seconds": clock[-1] - began - warm_up - sum(seconds),
        "compile_seconds": warm_up - arguments.warmup * median if arguments.compile else 0.0,
    }


def shape(text: str) -> tuple[int, int]:
    """Returns `2x256` as (batch_size, seq_length)."""
    batch_size, seq_length = (int(part) for part in text.split("x"))
    return batch_size, seq_length


def main() -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = {"units": 768, "num_layers": 12, "num_heads": 12, "max_length": 1024, "vocab_size": 50000, "dropout": 0.1}
    parser.add_argument("--shape", type=shape, default=(2, 256), help="batch_size x seq_length")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--model", default=json.dumps(base), help="sizes as JSON, in a recipe's words")
    parser.add_argument("--dropout", type=float, help="instead of the model's")
    parser.add_argument("--compile", action="store_true", help="torch.compile of model and loss")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are timed")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
