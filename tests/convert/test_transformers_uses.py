"""The converted folder in transformers and what builds on it: both ends of a text, special tokens, tuning, export."""

from __future__ import annotations

import json

import pytest

from tests.convert import torch_helpers
from tests.convert.kinds_of_lines import LINES
from tests.convert.tool_helpers import MAX_LENGTH, Converted, convert_profile, my_model, program, some_ids
from tests.helpers import kogpt2
from tests.lazy_modules import needed

torch = needed("torch", reason="transformers runs on it")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert_profile(tmp_path_factory.mktemp("uses") / "plain", "nmt_nfkc_jamo")


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert_profile(tmp_path_factory.mktemp("uses") / "bos", "nmt_nfkc_jamo", bos=True)


# --- both ends of a text


@pytest.mark.parametrize(
    ("options", "plain", "bos"),
    [
        ({}, "", "<s>"),
        ({"add_bos_token": True}, "<s>", "<s>"),
        ({"add_bos_token": True, "add_eos_token": True}, "<s> </s>", "<s> </s>"),
        ({"add_bos_token": False}, "", ""),
        ({"add_eos_token": True}, "</s>", "</s>"),
    ],
)
def test_what_is_added_to_a_text(options, plain, bos, converted, with_bos, transformers, tmp_path):
    for (folder, model), expected in ((converted, plain), (with_bos, bos)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        ids = model.encode("이 영화는")
        added = [*([1] if "<s>" in expected else []), *ids, *([2] if "</s>" in expected else [])]
        assert tokenizer("이 영화는").input_ids == added
        assert tokenizer.encode("이 영화는", add_special_tokens=False) == ids
        tokenizer.save_pretrained(tmp_path)
        assert transformers.AutoTokenizer.from_pretrained(tmp_path)("이 영화는").input_ids == added


def test_bos_changes_nothing_else(converted, with_bos, transformers):
    lines = [line for _, line in LINES]
    both = [transformers.AutoTokenizer.from_pretrained(folder) for folder, _ in (converted, with_bos)]
    plain, bos = (tokenizer(lines).input_ids for tokenizer in both)
    assert bos == [[1, *ids] for ids in plain]
    assert both[1].batch_decode(bos, skip_special_tokens=True) == both[0].batch_decode(plain, skip_special_tokens=True)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (converted.folder / name).read_bytes() == (with_bos.folder / name).read_bytes()
    assert "begins every text with `<s>`" in (with_bos.folder / "README.md").read_text(encoding="utf-8")
    assert "adds neither `<s>` nor `</s>`" in (converted.folder / "README.md").read_text(encoding="utf-8")


def test_the_option_of_the_command(checkpoint, tmp_path):
    for option in ([], ["--bos"]):
        kogpt2("convert", checkpoint.path, tmp_path / f"out{len(option)}", *option)
        content = json.loads((tmp_path / f"out{len(option)}" / "tokenizer.json").read_text(encoding="utf-8"))
        assert bool(content["post_processor"]) == bool(option)


# --- lengths, special tokens, generation


def test_a_call_gives_what_the_network_takes_and_no_token_types(converted, transformers):
    """GPT2LMHeadModel adds the embeddings of token types to those of tokens; transformers 4 makes them by default."""
    settings = json.loads((converted.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert list(transformers.AutoTokenizer.from_pretrained(converted.folder)("영화")) == settings["model_input_names"]


def test_beyond_max_length(converted, transformers):
    net = torch_helpers.network(converted.folder)
    with pytest.raises(IndexError):
        torch_helpers.logits_of(net, [5] * (MAX_LENGTH + 1))
    with pytest.raises(IndexError):
        torch_helpers.greedy(net, [1], MAX_LENGTH + 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(converted.folder, add_bos_token=True)
    ids = tokenizer("가 나 다 라" * 100, truncation=True).input_ids
    assert len(ids) == MAX_LENGTH and ids[0] == 1
    torch_helpers.logits_of(net, ids)


def test_special_tokens_of_your_own_and_chat_templates(converted, transformers):
    template = "{% for message in messages %}<|user|>{{ message.content }}</s>{% endfor %}"
    for options, recognised in (({}, False), ({"split_special_tokens": False}, True)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(converted.folder, **options)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
        added = converted.model.vocab_size()
        assert (added in tokenizer.encode("<|user|>안녕")) is recognised
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "안녕"}], chat_template=template, return_dict=False
        )
        assert (added in chat) is recognised and (2 in chat) is recognised


def test_the_pipeline_of_the_page(converted, tmp_path, capsys):
    with my_model(converted, tmp_path / "work"):
        exec(compile(program('pipeline("text-generation"'), "docs/after.md", "exec"), {})
    assert capsys.readouterr().out.startswith("이 영화는")


def test_rows_without_a_piece_are_never_drawn(tmp_path, small_tokenizer, transformers):
    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from tests.convert.convert_helpers import make_checkpoint

    convert_checkpoint(make_checkpoint(tmp_path / "run", small_tokenizer), tmp_path / "out")
    net = torch_helpers.network(tmp_path / "out")
    pieces = len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert pieces < net.config.vocab_size == 501
    with torch.no_grad():
        net.lm_head.weight[pieces:] += 10 * net.lm_head.weight.abs().max()  # tied: what is drawn if it may
    drawn = net.generate(torch.tensor([[1]]), max_new_tokens=40, do_sample=True, top_k=0, eos_token_id=None)
    assert drawn.max() < pieces


# --- tuning and export


def test_trainer_sees_both_ends_of_a_text(converted, transformers, tmp_path):
    pytest.importorskip("accelerate", reason="Trainer needs it")
    tokenizer = transformers.AutoTokenizer.from_pretrained(converted.folder, add_bos_token=True, add_eos_token=True)
    texts = [
        tokenizer(text, truncation=True, max_length=12) for text in ("이 영화는 정말 좋다.", "가 나 다 라 마 " * 9)
    ]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collator(texts)["labels"]
    assert (labels[:, 0] == 1).all() and labels[1, -1] == 2 and (labels == -100).any()
    net = torch_helpers.network(converted.folder)
    before = net.transformer.wte.weight.detach().clone()
    arguments = transformers.TrainingArguments(
        tmp_path / "run", max_steps=2, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(net, arguments, collator, texts, processing_class=tokenizer)
    assert trainer.train().training_loss < 20
    assert (net.transformer.wte.weight != before).any() and net.lm_head.weight is net.transformer.wte.weight


def test_the_program_of_the_page_tunes_with_peft(converted, tmp_path, capsys):
    pytest.importorskip("peft", reason="a peer of the test")
    defined: dict = {}
    with my_model(converted, tmp_path / "work") as work:
        adapted, merged = program("get_peft_model(").split("model.merge_and_unload()")
        exec(compile(adapted, "docs/after.md", "exec"), defined)
        for name, parameter in defined["model"].named_parameters():
            if "lora_B" in name:  # zero at first: nothing would change
                parameter.data.normal_(0, 0.1)
        ids = some_ids(converted.model)[2]
        tuned = torch_helpers.logits_of(defined["model"].eval(), ids)
        exec(compile("model.merge_and_unload()" + merged, "docs/after.md", "exec"), defined)
        saved = torch_helpers.logits_of(torch_helpers.network(work / "my-model-tuned"), ids)
    assert abs(tuned - saved).max() < 1e-5 * abs(tuned).max()
    assert abs(tuned - torch_helpers.logits_of(torch_helpers.network(converted.folder), ids)).max() > 1e-3
    assert "trainable params" in capsys.readouterr().out


def test_torch_export_takes_any_batch_and_length(converted):
    net = torch_helpers.network(converted.folder)

    class Logits(torch.nn.Module):
        def forward(self, input_ids):
            return net(input_ids, use_cache=False).logits

    lengths = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    example = torch.ones(2, 8, dtype=torch.long)
    exported = torch.export.export(Logits(), (example,), dynamic_shapes={"input_ids": lengths}).module()
    for shape in ((1, 3), (3, MAX_LENGTH), (2, 8)):
        ids = torch.randint(0, converted.model.vocab_size(), shape)
        with torch.no_grad():
            assert torch.allclose(exported(ids), net(ids).logits, atol=1e-4)
