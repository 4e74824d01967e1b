"""The model card: what the Hub reads, what a person reads, and nothing that a user's text could break."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.card import render_card, with_promotion
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.registry.records import Record, Said, from_document, to_document
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import candidate_uri, read_document
from tests.support.builders import example
from tests.support.registry_makers import CONFIG, SEEDS, keep


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Of iteration 2, trained on 12 seeds and 3 generated rows."""
    written = [example(f"new {i}", "red", parent_id=SEEDS[0].id, iteration=1) for i in range(3)]
    keep(str(tmp_path), "run", tmp_path / "model", lambda i: i < 84, training=[*SEEDS, *written], iteration=2)
    return read_document(candidate_uri(str(tmp_path), "run"), Record)


def changed(record: Record, **values: Any) -> Record:
    from dataclasses import replace

    return replace(record, **values)


def front(card: str) -> dict[str, Any]:
    values = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(values, dict)
    return values


def test_the_hub_reads_base_data_and_scores(record: Record) -> None:
    from huggingface_hub import ModelCard

    on_hub = changed(record, student="org/base-1b", data={"seeds": "org/data:small#train", "test": "org/data#test"})
    card = ModelCard(render_card(on_hub))
    assert card.data.base_model == "org/base-1b"
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.datasets == ["org/data"]
    assert {"llm2llm", "colours"} <= set(card.data.tags or [])
    found = {one.dataset_split: one for one in card.data.eval_results or []}
    assert (found["test"].metric_value, found["test"].dataset_type) == (0.84, "org/data")
    assert (found["validation"].metric_type, found["validation"].metric_value) == ("accuracy", 0.84)


def test_what_a_person_says_of_it_stands_in_the_card(record: Record) -> None:
    assert not {"license", "language"} & front(render_card(record)).keys()
    said = Said(
        license="apache-2.0",
        language=["en", "de"],
        intended_use="Sorts tickets.\n\n---\n# Not a title\n<script>alert(1)</script>",
        out_of_scope="Medical questions.",
    )
    card = render_card(changed(record, said=said))
    assert front(card)["license"] == "apache-2.0"
    assert front(card)["language"] == ["en", "de"]
    assert "\n## Intended use\n\nSorts tickets.\n\n\\---\n\\# Not a title\n&lt;script&gt;" in card
    assert "\n## Out of scope\n\nMedical questions.\n" in card
    assert "The licence and the limits" not in card
    assert from_document(Record, to_document(changed(record, said=said)), "x").said == said


def test_what_is_on_no_hub_is_not_named_as_if_it_were(record: Record) -> None:
    for student in ("scratch", "/models/base", "s3://bucket/base", "./base"):
        assert "base_model" not in front(render_card(changed(record, student=student)))
    for source in ("s3://bucket/seeds.jsonl", "data/seeds.csv", "seeds.parquet", "builtin:snips"):
        assert "datasets" not in front(render_card(changed(record, data={"seeds": source})))
    assert front(render_card(changed(record, adapter=True)))["library_name"] == "peft"


def test_a_person_reads_scores_data_and_limits(record: Record) -> None:
    card = render_card(record)
    assert "| validation | 84.0% | 75.6% to 89.9% | 100 | 0 |" in card
    assert "| training | 15 | 12 seeds, 3 generated |" in card
    assert "20% of its training rows were written by a model" in card
    assert "`teacher-8b` (openai): 1 call, 100 tokens in, 20 out, 0.01 USD" in card
    assert record.config_digest in card
    assert record.seeds.digest in card
    assert "/data/out" not in card, "where a run copied its inputs to says nothing to anybody"
    assert "There was no test split" in render_card(changed(record, accuracy={}))


def test_what_the_config_says_enters_the_card(tmp_path: Path) -> None:
    said = {"license": "mit", "language": ["fr"]}
    keep(str(tmp_path), "run-1", tmp_path / "model", lambda i: True, config={**CONFIG, "promote": {"card": said}})
    written = front(Path(candidate_uri(str(tmp_path), "run-1"), "README.md").read_text())
    assert (written["license"], written["language"]) == ("mit", ["fr"])
    for wrong in ({"license": "Apache 2.0"}, {"language": ["English"]}, {"licence": "mit"}):
        with pytest.raises(UserError, match=r"^promote\.card\.lic|^promote\.card\.lang"):
            PromoteSettings.load({"card": wrong}, "promote")


def test_the_card_holds_neither_time_nor_run(tmp_path: Path) -> None:
    cards = []
    for run in ("run-1", "run-2"):
        keep(str(tmp_path), run, tmp_path / "model", lambda i: True)
        cards.append(Path(candidate_uri(str(tmp_path), run), "README.md").read_text())
    assert cards[0] == cards[1]


def test_a_card_that_leaves_takes_its_promotion_along(record: Record) -> None:
    made = Generation(
        number=3, kind="promote", version="colours-0123456789ab", previous="colours-ba9876543210", run="run-7",
        at="2026-11-21T03:00:00+00:00", verdict={"reason": "it is better", "checks": [{"text": "by 3 points"}]},
    )  # fmt: skip
    card = with_promotion(render_card(record), made.version, made)
    assert front(card) == front(render_card(record))
    for words in (
        "colours-0123456789ab",
        "2026-11-21T03:00",
        "run-7",
        "colours-ba9876543210",
        "it is better",
        "- by 3",
    ):
        assert words in card.split("## Promotion")[1]


@pytest.mark.parametrize("name", ["a: [b", "`x` | <script>alert(1)</script>", "---\nlicense: mit", "ü\ud800"])
def test_odd_names_break_neither_yaml_nor_markdown(record: Record, name: str) -> None:
    card = render_card(changed(record, task=name, student=name))
    text = card.encode("utf-8", "replace").decode()
    assert "license" not in front(text)
    body = text.split("---\n", 2)[2]
    assert "`" + name not in body or "|" not in name
    for line in body.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 5, 7)
    assert "<script>" not in "".join(part for i, part in enumerate(body.split("`")) if i % 2 == 0)


def test_the_config_names_the_card(tmp_path: Path) -> None:
    keep(str(tmp_path), "run", tmp_path / "model", lambda i: True, config=CONFIG | {"name": "my-student"})
    assert "# my-student" in Path(candidate_uri(str(tmp_path), "run"), "README.md").read_text()
