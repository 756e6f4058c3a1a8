"""Packaging. constraints.txt has the exact versions for Python 3.11; the bounds here also admit 3.9 and 3.10."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# MXNet 1.9.1 uses names that NumPy 1.24 removed.
CORE = [
    "numpy>=1.21,<1.24",
    "gluonnlp==0.10.0",
    "sentencepiece>=0.2.0",
    "click>=8.0",
    "PyYAML>=6.0",
    "rich>=13.0",
    "xxhash>=3.0",
    "zstandard>=0.20",
    "mwparserfromhell>=0.6.4",  # Wikipedia's markup
    "psutil>=5.9",
    "tensorboardX>=2.6",
    "safetensors>=0.4",
    "tokenizers>=0.19",  # ignore_merges
    "protobuf>=3.20",  # SentencePiece's own model format
]

# mxnet-cu112 links these but does not require them; with them no CUDA toolkit is needed.
CUDA_LIBRARIES = [
    "nvidia-cuda-runtime-cu11==11.7.99",
    "nvidia-cublas-cu11==11.10.3.66",
    "nvidia-cufft-cu11==10.7.2.91",
    "nvidia-curand-cu11==10.2.10.91",
    "nvidia-cusolver-cu11==11.4.0.1",
    "nvidia-cuda-nvrtc-cu11==11.7.99",
    "nvidia-nvtx-cu11==11.7.91",
    "nvidia-nccl-cu11==2.14.3",
    "nvidia-cudnn-cu11==8.5.0.96",
]

# The fused CPU operators are compiled against these: matrix products in float32 and bfloat16.
ONEDNN = ["onednn-cpu-gomp==2023.2.0", "onednn-devel-cpu-gomp==2023.2.0"]

AWS = ["boto3>=1.36"]  # checksums of parts
# pyarrow declares no NumPy, and 26 refuses to be imported with one that MXNet 1.9.1 can use.
TABLES = ["pyarrow>=12,<26"]
# Metrics and baselines of tasks. seqeval is a source package that only `pip install --use-pep517` builds everywhere.
TASKS = ["scikit-learn>=1.3", "scipy>=1.9", "seqeval>=1.2.2"]
# lm-evaluation-harness: 240 MB. With a pyarrow that cannot be imported, it cannot be either.
HARNESS = ["lm-eval>=0.4.13; python_version >= '3.10'", *TABLES, *TASKS]
# kogpt2 serve
SERVE = [
    "fastapi>=0.115; python_version >= '3.10'",
    "uvicorn>=0.35; python_version >= '3.10'",
    "prometheus-client>=0.20; python_version >= '3.10'",
]
# kogpt2 search: 5 counts pruned trials as TPE needs it
SEARCH = ["optuna>=5"]
# kogpt2 tokenizer --morphemes kiwi. A tokenizer's file names the exact versions, and says so where others are there.
MORPHEMES = ["kiwipiepy>=0.24,<0.25", "kiwipiepy_model>=0.24,<0.25"]
PICTURES = ["resvg-py>=0.3; python_version >= '3.10'"]  # kogpt2 report --format png
TRACKERS = ["mlflow-skinny>=3; python_version >= '3.10'", "wandb>=0.31; python_version >= '3.10'"]
LAUNCH = ["py-spy>=0.4"]  # where a worker hangs
# ijson: a second reader of the JSON corpora, to compare ours with
# kubernetes-validate: the published schemas of pods
SCHEMAS = ["kubernetes-validate>=1.37", "jsonschema>=4.23"]
PYTEST = ["pytest>=7", "pytest-timeout>=2", "pytest-xdist>=3.5"]
# Tools that read the converted folder; transformers.js comes from npm, see the Makefile.
PEERS = [
    "ctranslate2>=4",
    "onnxruntime>=1.17",
    "openvino>=2025",
    "openvino-tokenizers>=2025",
    "peft>=0.10",
    "accelerate>=1",
    "xllamacpp>=2026; python_version >= '3.10'",  # llama.cpp
]
# Clients of the service: OpenAI's, what the harness's local-completions needs, and requests made from openapi.json.
CLIENTS = ["openai>=2", "tenacity>=9", "schemathesis>=4; python_version >= '3.11'"]
BROWSER = ["playwright>=1.50", "axe-playwright-python>=0.1.8"]  # the service's page; Chromium itself is Debian's
TEST = [
    *PYTEST,
    *BROWSER,
    "hypothesis>=6",
    "moto[s3]>=5",
    "ijson>=3.2",
    *PEERS,
    *SCHEMAS,
    *AWS,
    *LAUNCH,
    *HARNESS,
    *SERVE,
    *SEARCH,
    *PICTURES,
    *MORPHEMES,
    *TRACKERS,
    *CLIENTS,
]
# The documentation as a site: `make docs`.
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
LINT = ["ruff>=0.5", "mypy>=1.8", "import-linter>=2", "types-PyYAML", "types-psutil"]

setup(
    name="kogpt2-gluon",
    version="0.1.0",
    description="The training recipe of KoGPT-2, complete: MXNet Gluon, Horovod, and conversion to PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.12",
    packages=[
        *find_packages(include=["kogpt2_gluon", "kogpt2_gluon.*"]),
        "kogpt2_launch",
        *(f"kogpt2_launch.{room}" for room in find_packages("launch")),
        "kogpt2_recipes",
    ],
    package_dir={"kogpt2_launch": "launch", "kogpt2_recipes": "recipes"},
    package_data={
        "kogpt2_recipes": ["*.yaml", "mixes/*.yaml", "chains/*.yaml"],
        "kogpt2_gluon.corpus.cleaning": ["presets/*.yaml"],
        "kogpt2_gluon.ops": ["src/*/*"],
        "kogpt2_gluon.serving.page": ["*.html", "*.css", "*.js", "*.svg"],
        "kogpt2_gluon.tasks.prompts": ["*.yaml"],
    },
    install_requires=CORE,
    extras_require={
        "cpu": ["mxnet==1.9.1", *ONEDNN],
        "cu112": ["mxnet-cu112==1.9.1", *CUDA_LIBRARIES],
        "aws": AWS,
        "tables": TABLES,
        "tasks": TASKS,
        "harness": HARNESS,
        "serve": SERVE,
        "search": SEARCH,
        "pictures": PICTURES,
        "morphemes": MORPHEMES,
        "trackers": TRACKERS,
        "launch": [*AWS, *LAUNCH],
        "convert": ["torch>=2.0", "transformers>=4.40", "onnx>=1.15", "gguf>=0.10"],
        "test": [*TEST, *LINT],
        "docs": DOCS,
        "fuzz": ["atheris>=2.3"],  # inputs that follow the coverage of the code
        "bench": ["pyppmd>=1.1", "zpaq>=0.3"],  # compressors, as models of text
    },
    entry_points={
        "console_scripts": [
            "kogpt2=kogpt2_gluon.cli.main:main",
            "kogpt2-launch=kogpt2_launch.cli.main:main",
        ]
    },
)
