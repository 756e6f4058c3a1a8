"""The sections of a recipe: every key with its default, its bounds and what it means. One class is one section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kogpt2_gluon.options import Paths, option

# Keys of `training`: those that are not about what is computed,
WHERE_IT_RUNS = ("ops", "device", "threads", "recompute", "compare_interval")
# those about the weights that a run begins with,
INITIAL = ("init_from", "init_positions", "init_vocabulary", "init_renamed")
# and those about updates that are out of the ordinary.
WHEN_ODD = ("on_nonfinite", "on_spike", "spike_window", "spike_sigmas", "spike_leave_out", "most_skipped")


class OptimizerChoice(NamedTuple):
    """An optimizer that a recipe may name: its meaning in a few words, and the arrays it keeps for each parameter."""

    meaning: str
    arrays: int


# The implementations are in kogpt2_gluon/training/optimizers.py, under the same names.
OPTIMIZERS = {
    "bertadam": OptimizerChoice("Adam without bias correction, decoupled weight decay (GluonNLP)", 2),
    "adamw": OptimizerChoice("Adam with decoupled weight decay (Loshchilov and Hutter, 2019)", 2),
    "adam": OptimizerChoice("Adam, weight decay as L2 (Kingma and Ba, 2015)", 2),
    "lamb": OptimizerChoice("AdamW with a trust ratio for each parameter, for large batches (You et al., 2020)", 2),
}


@dataclass
class ModelRecipe:
    """The network, in GluonNLP's terms. The defaults are KoGPT-2 base."""

    units: int = option(768, "width of the hidden states; the FFN is four times as wide", minimum=1)
    num_layers: int = option(12, "number of transformer blocks", minimum=1, maximum=10_000)
    num_heads: int = option(12, "attention heads of a block; must divide units", minimum=1)
    max_length: int = option(1024, "longest sequence that has position embeddings", minimum=2)
    vocab_size: int = option(50000, "rows of the embedding; at least the tokenizer's size", minimum=5)
    dropout: float = option(0.1, "on embeddings, attention, attention output and FFN", minimum=0.0, maximum=0.99)
    activation: str = option(
        "gelu",
        "of the FFN: gelu, the erf form, as KoGPT-2 has it; gelu_tanh, its approximation, as OpenAI's GPT-2 has it",
        choices=("gelu", "gelu_tanh"),
    )


@dataclass
class DataRecipe:
    """The data to read and how: token shards (`kogpt2 shard` writes them), or text.

    window, max_lanes and the cache are for shards; tokenizer, documents, refresh, encoding, include, exclude and
    bpe_dropout are for text.
    """

    train: Paths = option(
        "",
        "folder of training shards; or a list of them, read as one corpus; or {folder: weight, ...}, weight > 0; with "
        "data.source=text a file, folder or s3:// prefix of text, or a list of them",
        path=True,
    )
    test: str = option("", "folder of held-out shards, for any data.source; empty: no evaluation", path=True)
    seq_length: int = option(1024, "tokens of a training sequence", minimum=1)
    window: int = option(
        8, "chunks that a lane mixes while shuffling; memory is lanes x (window + 1) x chunk", minimum=1
    )
    max_lanes: int = option(64, "most lanes of the reading order; the number of workers must divide them", minimum=1)
    corrupt: str = option(
        "stop",
        "what happens at a damaged chunk: the run stops, or it skips the chunk, counts it and reads another; for text: "
        "whether a run starts with files that cannot be read, or leaves them out and says so",
        choices=("stop", "skip"),
    )
    cache: str = option(
        "off",
        "copies on the node's own disk: none, of the chunks needed soon, of all chunks",
        choices=("off", "window", "full"),
    )
    cache_dir: str = option(
        "", "folder of the cache, on a disk of the node itself; needed unless data.cache=off", path=True
    )
    cache_gib: float = option(100.0, "the most GiB that the cache may use", minimum=0.001)
    source: str = option("shards", "token shards, or text tokenized on the fly", choices=("shards", "text"))
    tokenizer: str = option(
        "", "SentencePiece model or tokenizer.json, for text, and for tasks (else that of init_from)", path=True
    )
    documents: str = option(
        "line",
        "what a document is, for data.source=text: a kind that `kogpt2 clean --help` names, or a FIELD of JSON or of "
        "a table (field:NAME if NAME is one of these words)",
    )
    refresh: str = option("never", "for text: when the list of files is read again", choices=("never", "epoch"))
    encoding: str = option(
        "auto",
        "for text: its encoding; auto decides it for each file by its bytes",
        choices=("auto", "utf-8", "cp949", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "johab"),
    )
    include: list[str] = option([], "for text: patterns of files, such as '*.txt'; only files that fit are read")
    exclude: list[str] = option([], "for text: patterns of files that are left out")
    bpe_dropout: float = option(0.0, "for text: share of merges left out at random", minimum=0.0, maximum=0.99)

    @property
    def train_sets(self) -> list[str]:
        """The paths that `train` names, in its order; none if it is empty."""
        return list(self.train) if isinstance(self.train, (list, dict)) else [self.train] if self.train else []

    @property
    def train_weights(self) -> list[float] | None:
        """Each set's share of the sequences, adding up to 1; None where the sets' sizes decide."""
        if not isinstance(self.train, dict):
            return None
        largest = max(self.train.values())  # first divided by it: the sum of huge weights would overflow
        scaled = [weight / largest for weight in self.train.values()]
        return [weight / sum(scaled) for weight in scaled]


@dataclass
class TrainingRecipe:
    """Steps, batch, optimizer, schedule. A step is one optimizer update over total_batch_size sequences."""

    num_steps: int = option(1000, "optimizer updates in the whole run", minimum=1)
    batch_size: int = option(8, "sequences of one worker in one micro step", minimum=1)
    total_batch_size: int = option(8, "sequences of one update, over all workers and micro steps", minimum=1)
    optimizer: str = option(
        "bertadam",
        "the update rule; " + "; ".join(f"{name}: {choice.meaning}" for name, choice in OPTIMIZERS.items()),
        choices=tuple(OPTIMIZERS),
    )
    learning_rate: float = option(1e-4, "peak learning rate", minimum=0.0)
    final_learning_rate: float = option(0.0, "learning rate at the last step", minimum=0.0)
    schedule: str = option("linear", "decay after the warm-up", choices=("linear", "cosine"))
    warmup_ratio: float = option(
        0.01, "share of num_steps in which the learning rate rises linearly", minimum=0.0, maximum=1.0
    )
    weight_decay: float = option(
        0.01, "for matrices, not for biases and LayerNorm; decoupled, except L2 for adam", minimum=0.0
    )
    beta1: float = option(0.9, "decay of the first moment, below 1", minimum=0.0, maximum=1.0)
    beta2: float = option(0.999, "decay of the second moment, below 1", minimum=0.0, maximum=1.0)
    epsilon: float = option(1e-6, "added to the root of the second moment", minimum=1e-12)
    clip_norm: float = option(1.0, "largest global gradient norm; 0: no clipping", minimum=0.0)
    on_nonfinite: str = option(
        "stop",
        "what happens at a loss or gradient that is not finite: the run stops, the update is skipped, or the run goes "
        "back to its last checkpoint and leaves out this update. An overflow of float16 alone is always skipped",
        choices=("stop", "skip", "rollback"),
    )
    on_spike: str = option(
        "log",
        "what happens at a spike of loss or gradient norm: nothing, a line in the log, the update is skipped, or the "
        "run goes back to its last checkpoint and leaves out this update",
        choices=("off", "log", "skip", "rollback"),
    )
    spike_window: int = option(128, "a spike is far above the mean of so many last updates", minimum=4)
    spike_sigmas: float = option(6.0, "and that is more than so many standard deviations", minimum=1.0)
    spike_leave_out: int = option(
        1, "updates that a rollback leaves out at a spike: that one, and those right before it", minimum=1
    )
    most_skipped: int = option(
        100,
        "the most updates that on_nonfinite and on_spike skip or roll back; then, or after 10 in a row, the run stops",
        minimum=0,
    )
    compare_interval: int = option(
        500,
        "steps between comparisons of the workers' parameters and moments, by a hash; they also precede every save. A "
        "worker that differs is named and the run stops. 0: never",
        minimum=0,
    )
    init_from: str = option(
        "",
        "a checkpoint or a transformers folder of a GPT-2, whose weights alone a new run begins with; empty: random "
        "weights",
        path=True,
    )
    init_positions: str = option(
        "none",
        "how init_from's positions are extended to a longer model.max_length: repeat them, or interpolate between them",
        choices=("none", "repeat", "interpolate"),
    )
    init_vocabulary: str = option(
        "none",
        "how init_from's embedding is extended to more pieces: each new row is the mean of the trained ones",
        choices=("none", "mean"),
    )
    init_renamed: str = option(
        "none",
        "how the rows of tokens that `kogpt2 tokenizer rename` named begin: as in init_from, or as the mean of the "
        "rows of the pieces that spelled the name before",
        choices=("none", "mean"),
    )
    seed: int = option(0, "the one seed of weights, order and dropout", minimum=0)
    precision: str = option(
        "float32",
        "format of the network's products; parameters and updates are always float32. bfloat16 is for CPUs with the "
        "fused operators. float16, with a loss scale, is for GPUs; on a CPU it is emulated, slowly. auto: on a CPU "
        "bfloat16 if it is measured to be 10% faster, on a GPU with tensor cores float16; else float32",
        choices=("float32", "bfloat16", "float16", "auto"),
    )
    ops: str = option(
        "auto",
        "operators: fused (`kogpt2 ops build` compiles them), MXNet's stock ones, or auto: fused where available",
        choices=("auto", "fused", "stock"),
    )
    recompute: str = option(
        "none",
        "what the backward pass computes again instead of keeping it: nothing, or each layer, of which only the input "
        "is kept. That takes less memory and more time (`--dry-run` says how much) and gives the same numbers",
        choices=("none", "layer"),
    )
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "gpu"))
    threads: int = option(0, "CPU threads of one worker; 0: cores / local workers", minimum=0)


@dataclass
class TaskRecipe:
    """The task that a network is fine-tuned for (`kogpt2 finetune`). Without a name the run trains a language model.

    A step's sequences are the rows of the task then, and data.seq_length is the most tokens of one.
    """

    name: str = option("", "a task that `kogpt2 finetune --help` names, or the YAML file of a table of your own")
    data: str = option("", "folder of the task's files", path=True)
    epochs: float = option(
        0.0,
        "passes over the training rows: training.num_steps follows from them, and evaluation.interval, where that is "
        "0, is one; 0: both are as given",
        minimum=0.0,
    )
    dev_share: float = option(
        0.1,
        "share of the training rows that chooses the best checkpoint where the data has no dev set besides a test set",
        minimum=0.001,
        maximum=0.9,
    )
    locales: list[str] = option(
        [],
        "languages of massive that are trained, such as [ko-KR, en-US]; [all]: those with a file in task.data, without "
        "zero_shot's; empty: ko-KR",
    )
    zero_shot: list[str] = option(
        [], "languages of massive that are left out of training, and whose test rows are scored; [all]: all others"
    )
    too_long: str = option(
        "stop",
        "what happens at a row of more than data.seq_length tokens: the run does not start, or its last tokens are cut "
        "off and such rows are counted",
        choices=("stop", "cut"),
    )


@dataclass
class EvaluationRecipe:
    """Held-out loss, and the original's stop rule (KoGPT2 issue #23)."""

    interval: int = option(500, "steps between evaluations; 0: only at the start and the end", minimum=0)
    batch_size: int = option(8, "sequences of one worker in one evaluation step", minimum=1)
    max_sequences: int = option(0, "held-out sequences used during training, evenly spaced; 0: all of them", minimum=0)
    stop_improvement: float = option(
        0.0, "stop when an epoch improves held-out perplexity by less than this share; 0: never", minimum=0.0
    )
    patience: int = option(
        0, "stop after so many evaluations in a row that were not the best so far; 0: never", minimum=0
    )


@dataclass
class CheckpointRecipe:
    """Where and how often the state is saved."""

    ckpt_dir: str = option("", "folder of checkpoints; empty: RUN_DIR/checkpoints", path=True)
    interval: int = option(1000, "steps between checkpoints; 0: only at the end, and the best", minimum=0)
    keep: int = option(3, "newest checkpoints kept; 0: all", minimum=0)
    keep_every: int = option(0, "also keep those whose step is a multiple of this; 0: none", minimum=0)
    keep_best: bool = option(
        True,
        "also keep the checkpoint of the lowest held-out loss, as RUN_DIR/best: each evaluation that improves saves at "
        "once; no effect if data.test is empty",
    )
    in_background: bool = option(
        True,
        "write checkpoints while the training goes on: the first worker keeps a copy of parameters and moments in its "
        "host's memory; false: training waits for the disk, without the copy",
    )
    mirrors: list[str] = option(
        [],
        "folders or S3 prefixes (s3://bucket/prefix) that get a copy of each checkpoint in the background, and keep "
        "what the folder of checkpoints keeps; if that folder is gone, a run goes on from the newest copy. Each run "
        "needs mirrors of its own",
        path=True,
    )


@dataclass
class AdaptationRecipe:
    """Training of a few numbers, of which matrices of a trained network are functions; none trains all parameters.

    The network comes from training.init_from. Checkpoints hold the merged network, or network and prompt, so every tool
    takes them.
    """

    method: str = option(
        "none",
        "none; lora: low-rank matrices are added; scales: matrices are quantised to a few bits, whose scales are "
        "trained (AlphaTuning); prompt: vectors in front of each text are trained, and the network is not (prompt "
        "tuning, p-tuning)",
        choices=("none", "lora", "scales", "prompt"),
    )
    targets: str = option("attention", "the matrices that are adapted", choices=("attention", "feed_forward", "all"))
    rank: int = option(8, "lora: rank of what is added", minimum=1)
    alpha: float = option(16.0, "lora: what is added is alpha / rank times the product", minimum=0.0)
    bits: int = option(3, "scales: bits of a number", minimum=1, maximum=4)
    group_size: int = option(0, "scales: columns of a row that share scales; 0: the whole row", minimum=0)
    scales: str = option("first", "scales: which of a row's scales are trained", choices=("first", "all"))
    prompt_length: int = option(20, "prompt: vectors, each of which takes a position", minimum=1)
    prompt_text: str = option(
        "", "prompt: words whose tokens' vectors it begins with, repeated or cut; empty: those of random tokens"
    )
    encoder: str = option(
        "none",
        "prompt: the network that makes the vectors while they are trained (p-tuning); none: they are trained directly",
        choices=("none", "mlp", "lstm"),
    )
    encoder_size: int = option(0, "prompt: hidden units of the encoder; 0: those of the network", minimum=0)


@dataclass
class DistillationRecipe:
    """A teacher, from whose predictions the network learns in addition to the text; none is the usual training.

    Held-out figures are those of the text alone, so they compare with those of runs without a teacher.
    """

    teacher: str = option("", "a checkpoint or a transformers folder of a GPT-2; empty: no teacher", path=True)
    temperature: float = option(
        2.0, "divides both logits where they are compared: the higher, the more small probabilities count", minimum=0.1
    )
    weight: float = option(
        0.5, "share of the divergence from the teacher in the loss; the text has the rest", minimum=0.0, maximum=1.0
    )
    hidden_weight: float = option(
        0.0, "weight of the mean squared error of the last hidden states, added to the loss", minimum=0.0
    )
    init_layers: bool = option(False, "begin with layers of the teacher, evenly spread, and with its embeddings")


@dataclass
class TrackingRecipe:
    """The record that a run writes for people to read."""

    run_dir: str = option("runs/kogpt2", "folder of this run", path=True, needed=True)
    log_interval: int = option(10, "steps between log lines", minimum=1)
    tensorboard: bool = option(True, "write TensorBoard events")
    mlflow: str = option("", "MLflow's tracking URI, such as http://HOST:5000, to send the figures there; empty: none")
    wandb: str = option(
        "off",
        "send the figures to Weights & Biases, or keep them in the run folder for its `wandb sync`",
        choices=("off", "online", "offline"),
    )
    sample_prompts: list[str] = option([], "prompts continued after each evaluation, kept in RUN_DIR/samples")
    sample_length: int = option(40, "the most new tokens of such a sample", minimum=1)
