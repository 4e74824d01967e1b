"""SNIPS (Coucke et al. 2018): which of seven intents does a voice command have?

question  add clem burke in my playlist Pre-Party R&B Jams
target    AddToPlaylist
"""

from llm2llm.components.shared.tasks.task import Columns, Task

TASK = Task(
    name="snips",
    form="classification",
    labels=[
        "AddToPlaylist",
        "BookRestaurant",
        "GetWeather",
        "PlayMusic",
        "RateBook",
        "SearchCreativeWork",
        "SearchScreeningEvent",
    ],
    instruction="Which intent does the command have?",
    question_cue="Command",
    answer_cue="Intent",
    description="Commands that people give to a voice assistant, each with one of seven intents.",
    columns=Columns(question="text", answer="intent"),
    max_new_tokens=12,
)
