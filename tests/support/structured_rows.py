"""Writes the shipped rows of the tasks with JSON answers, `components/builtin/structured`, from small grammars.

    python -m tests.support.structured_rows components/builtin/structured

A row is kept where its text is unlike every row kept before (ROUGE-L below `ALIKE`), so no split leaks into another.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPLITS = {"seeds": 32, "validation": 16, "test": 24, "pool": 48}
ALIKE = 0.7
TRIES = 20_000

PEOPLE = ["Ann Lee", "Omar Diaz", "Mei Tan", "Ivo Novak", "Sara Holm", "Tariq Aziz", "Lena Vogt", "Paul Achebe"]
CITIES = ["Oslo", "Rome", "Lima", "Osaka", "Cairo", "Perth", "Quito", "Riga", "Dakar", "Porto"]
ITEMS = ["desk lamp", "garden hose", "tea kettle", "wall clock", "bread knife", "yoga mat", "rain coat", "phone case"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

Row = dict[str, Any]


def order(draw: random.Random) -> Row:
    """Extraction: who orders what, how many, and by when, if that is said."""
    who, item, count, day = draw.choice(PEOPLE), draw.choice(ITEMS), draw.randint(2, 40), draw.choice(DAYS)
    wanted = draw.choice(
        [
            f"please put {count} of the {item} aside for {who}",
            f"{who} here, I would like to buy {count} units of your {item}",
            f"this is an order by {who} over {count} times the {item}",
            f"could we get the {item}, {count} pieces? Best, {who}",
            f"my name is {who} and our office needs {count} more of the {item} model",
            f"{count} x {item}, customer {who}",
            f"on behalf of {who}: send us {item} ({count})",
            f"we have run out of the {item} again, so {who} asks for another {count}",
        ]
    )
    due = draw.choice(
        [
            f"It must arrive by {day}.", f"Latest delivery: {day}.", f"We open on {day} and need it there.",
            f"{day} is the last day that suits us.", f"A courier can collect it on {day}.",
            f"Our party is on {day}, not later!", f"The shop window changes every {day}, so until then.",
        ]
    )  # fmt: skip
    nothing = draw.choice(
        [
            "There is no hurry.", "Whenever it suits you.", "Take all the time you need.", "Send the bill along.",
            "Thanks a lot for the quick help!", "Pay by card as usual?", "Is there a discount for that many?",
        ]
    )  # fmt: skip
    has_due = draw.random() < 0.6
    said = [wanted[0].upper() + wanted[1:] + ("" if wanted.endswith("?") else "."), due if has_due else nothing]
    answer: Row = {"customer": who, "item": item, "quantity": count}
    return {"text": " ".join(draw.sample(said, 2)), "answer": {**answer, "due": day} if has_due else answer}


TOPICS = {
    "delivery": [
        "The parcel came four days late.", "Nobody rang before leaving it in the rain.",
        "Tracking has said 'on its way' since last week.", "The driver was on time to the minute.",
        "Half of the boxes never arrived.", "It was dropped at the wrong house.",
    ],
    "price": [
        "That is far too much money for what you get.", "I found it cheaper in two other shops.",
        "The discount code did nothing at checkout.", "For this amount it is a real bargain.",
        "Why did shipping cost more than the thing itself?", "You charged my card twice.",
    ],
    "quality": [
        "The handle broke off on the first day.", "Stitching and colours are lovely.",
        "It smells of glue even after a month.", "After a year of daily use it still looks new.",
        "One side is scratched all over.", "The lid does not close properly.",
    ],
    "service": [
        "Your hotline hung up on me three times.", "The woman in the chat solved it within a minute.",
        "I am still waiting for an answer to my mail.", "Great advice by your staff in the store!",
        "They promised to call back and never did.", "Nobody there seems to know the products.",
    ],
}  # fmt: skip


def review(draw: random.Random) -> Row:
    """Several labels: what a review is about."""
    topics = draw.sample(sorted(TOPICS), draw.choice([1, 2, 2, 3]))
    return {"text": " ".join(draw.choice(TOPICS[topic]) for topic in topics), "topics": sorted(topics)}


def news(draw: random.Random) -> Row:
    """Spans: people and places, in the order in which they stand in the text."""
    (who, other), (here, there) = draw.sample(PEOPLE, 2), draw.sample(CITIES, 2)
    person, place = "person", "place"
    parts: list[list[str | tuple[str, str]]] = draw.sample(
        [
            [(who, person), " left ", (here, place), " before dawn and reached ", (there, place), " at noon."],
            ["The museum of ", (here, place), " has bought a painting from ", (who, person), "."],
            ["Nobody in ", (there, place), " expected ", (other, person), " to win the race."],
            ["It rained all week."],
            [(other, person), " and ", (who, person), " will open the new bridge together."],
            ["Trains between ", (here, place), " and ", (there, place), " are cancelled until further notice."],
            ["A letter signed by ", (who, person), " was found under the floor of a school."],
            ["Prices of bread have doubled, the union says."],
            ["Fans queued for hours to hear ", (other, person), " sing."],
            ["The mayor of ", (there, place), " has resigned after a dispute over parking."],
        ],
        2,
    )
    text = " ".join("".join(one if isinstance(one, str) else one[0] for one in part) for part in parts)
    spans = [{"text": one[0], "type": one[1]} for part in parts for one in part if not isinstance(one, str)]
    return {"text": text, "spans": spans}


def _tool(name: str, description: str, **properties: Row) -> Row:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


CITY = {"type": "string", "description": "a city"}
TOOLS = {
    "get_weather": _tool("get_weather", "Today's weather in a city.", city=CITY),
    "get_time": _tool("get_time", "The local time in a city.", city=CITY),
    "set_alarm": _tool("set_alarm", "Sets an alarm.", hour={"type": "integer", "minimum": 0, "maximum": 23}),
    "play_radio": _tool("play_radio", "Plays a radio station from a city.", city=CITY),
}


def request(draw: random.Random) -> Row:
    """Tool calls: one or two calls of the tools that the row offers."""
    (here, there), hour = draw.sample(CITIES, 2), draw.randint(4, 22)
    asked = {
        "get_weather": [f"Do I need an umbrella in {here}?", f"How warm is it in {here} right now?",
                        f"Tell me whether the sun shines over {here}."],
        "get_time": [f"What do the clocks say in {there}?", f"Is it already night for our friends in {there}?",
                     f"I must phone the {there} office, how late is it there?"],
        "set_alarm": [f"Wake me up at {hour} o'clock.", f"I have to be out of bed by {hour}:00 sharp.",
                      f"Make some noise at {hour} so that I do not oversleep."],
        "play_radio": [f"Put on a station from {there}, please.", f"I feel like music from {there} tonight.",
                       f"Let us hear what they broadcast in {there}."],
    }  # fmt: skip
    arguments: dict[str, Row] = {
        "get_weather": {"city": here}, "get_time": {"city": there}, "set_alarm": {"hour": hour},
        "play_radio": {"city": there},
    }  # fmt: skip
    offered = draw.sample(sorted(TOOLS), 3)
    used = draw.sample(offered, draw.choice([1, 1, 2]))
    opener = draw.choice(["", "Hello! ", "Quick one: ", "Sorry to bother you. ", "Hey there, listen. "])
    return {
        "text": opener + " ".join(draw.choice(asked[name]) for name in used),
        "tools": [TOOLS[name] for name in sorted(offered)],
        "calls": [{"name": name, "arguments": arguments[name]} for name in used],
    }


GRAMMARS: dict[str, Callable[[random.Random], Row]] = {
    "orders": order,
    "reviews": review,
    "news": news,
    "tool_calls": request,
}


def rows_of(name: str) -> dict[str, list[Row]]:
    """The rows of each split of a task."""
    from llm2llm.components.shared.similarity import rouge_l

    draw = random.Random(name)
    kept: list[Row] = []
    for _ in range(TRIES):
        row = GRAMMARS[name](draw)
        if not kept or rouge_l([row["text"]], [one["text"] for one in kept]).max() < ALIKE:
            kept.append(row)
        if len(kept) == sum(SPLITS.values()):
            break
    else:
        raise SystemExit(f"{name}: only {len(kept)} rows are unlike one another")
    rest = iter(kept)
    return {split: [next(rest) for _ in range(count)] for split, count in SPLITS.items()}


def text_of(rows: list[Row]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for task in GRAMMARS:
        folder = Path(sys.argv[1]) / task
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in rows_of(task).items():
            (folder / f"{split}.jsonl").write_text(text_of(rows), encoding="utf-8")
