"""Sampled records without a prompt: they learn from the very prompt that is asked at inference."""

import json

import pytest
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import write_jsonl

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.cache import cache_key
from tunesmith.data.prepare import prepare
from tunesmith.data.prompts.load import prepare_prompts
from tunesmith.errors import DataError
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.source import TokenizerSource


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


ARTICLES = {
    "264": "盗窃公私财物,数额较大的,处三年以下有期徒刑。",
    "133-0-0": "违反交通运输管理法规。",
    "H3": "Do not ring the bell.",
}
CASES = [
    {"fact": "甲在商店盗窃手机。", "relevant_articles": ["264"], "charge": "盗窃罪", "prison_time": 9},
    {"fact": " 乙醉酒驾车。\n", "relevant_articles": ["133-0-0", 264], "charge": "", "prison_time": None},
    {"fact": "Mira rang the bell.", "relevant_articles": ["H3"], "charge": "ringing", "prison_time": 0},
    {"fact": "丙在家中。", "relevant_articles": []},
    {"fact": "丁盗窃。", "meta": {"relevant_articles": [264], "accusation": ["[盗窃]"]}},
]


def reply(case, **fields):
    return {**case, "response": "盗窃罪 | 9", "num_correct_for_this_sample": 1, **fields}


@pytest.fixture
def make(tmp_path):
    """Prepare sampled records; `articles` None leaves `articlesUri` out."""
    numbers = iter(range(99))

    def made(records, articles=ARTICLES, **settings):
        data = write_jsonl(tmp_path / "sampled.jsonl", records)
        fmt = {}
        if articles is not None:
            (tmp_path / "articles.json").write_text(json.dumps(articles), "utf-8")
            fmt = {"articlesUri": f"file://{tmp_path}/articles.json"}
        spec = small_spec(
            {"maxLength": 1024}, datasets=[{"uri": f"file://{data}", "sampled": fmt, **settings}]
        )
        return prepare(spec, TOKENIZER, StorageOptions(), tmp_path / f"out-{next(numbers)}")

    return made


def prompt_of(table, index):
    """The ids of a sample before its reply."""
    weights = table.weights(index).tolist()
    return table.ids(index).tolist()[: next(at for at, weight in enumerate(weights) if weight)]


@pytest.mark.parametrize("system", [None, "You are a judge."])
def test_the_prompt_is_the_one_asked_at_inference(make, tmp_path, system):
    extra = {"systemPrompt": system} if system else {}
    trained = make([reply(case) for case in CASES], **extra).train
    cases = write_jsonl(tmp_path / "cases.jsonl", CASES)
    legal = {"articlesUri": f"file://{tmp_path}/articles.json"}
    spec = PromptsSpec.model_validate({"uri": f"file://{cases}", "legalJudgement": legal, **extra})
    asked = list(prepare_prompts(spec, TOKENIZER, StorageOptions(), tmp_path / "prompts"))
    assert [prompt_of(trained, at) for at in range(len(trained))] == [list(each.ids) for each in asked]
    assert "盗窃公私财物" in TOKENIZER.decode(prompt_of(trained, 0))


def test_a_list_of_articles_and_a_prompt_of_ones_own(make):
    listed = [{"id": key, "content": text} for key, text in ARTICLES.items()]
    own = [{"role": "user", "content": "Q"}]
    table = make([reply(CASES[0]), reply(CASES[1], prompt=own)], listed).train
    assert "处三年以下" in TOKENIZER.decode(prompt_of(table, 0))
    assert prompt_of(table, 1) == TOKENIZER.prompt_ids([Message("user", "Q")])


def test_without_articles_a_record_without_prompt_is_bad(make):
    with pytest.raises(DataError) as caught:
        make([reply(CASES[0]), reply(CASES[0], prompt=[{"role": "user", "content": "Q"}])], None)
    assert "1 bad record, 0 allowed" in caught.value.message
    assert "sampled.jsonl, line 1: prompt is missing; set sampled.articlesUri to the file of articles" in (
        caught.value.message
    )


def test_an_unknown_article_is_named(make):
    with pytest.raises(DataError) as caught:
        make([reply(CASES[0]), reply(CASES[0] | {"relevant_articles": ["999"]})])
    said = "sampled.jsonl, line 2: relevant_articles names 999, which is not in the file of articles"
    assert said in caught.value.message


def test_changed_articles_make_new_samples(tmp_path):
    """Of datasets and of a validation set, also where only the order of the file's bytes tells."""
    tokenizer = load_family("chatml")
    (tmp_path / "model").mkdir()
    tokenizer.source = TokenizerSource(tmp_path / "model", False, tokenizer.today)
    data = write_jsonl(tmp_path / "sampled.jsonl", [reply(CASES[0])])
    articles = tmp_path / "articles.json"
    part = {"uri": f"file://{data}", "sampled": {"articlesUri": f"file://{articles}"}}
    plain = {"uri": f"file://{data}", "chat": {}}
    (tmp_path / "old.json").write_text(json.dumps({"264": "x"}), "utf-8")
    both = {"articlesUri": f"file://{tmp_path}/old.json", "changedArticlesUri": f"file://{articles}"}
    for spec in (
        small_spec({}, datasets=[part]),
        small_spec({}, datasets=[part | {"sampled": both}]),
        small_spec({}, datasets=[plain], validation=part),
    ):
        keys = []
        for text in ("盗窃", "盗劫"):
            articles.write_text(json.dumps({"264": text}), "utf-8")
            keys.append(cache_key(spec, tokenizer, StorageOptions(), first=1, vocab_size=None))
        assert len(set(keys)) == 2
