"""GSM8K (Cobbe et al. 2021): grade-school word problems; a rationale, then `#### number`.

question  Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. ...
target    Natalia sold 48/2 = <<48/2=24>>24 clips in May.
          Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
          #### 72
"""

from llm2llm.components.shared.tasks.task import Task

TASK = Task(
    name="gsm8k",
    form="numeric",
    rationale=True,
    instruction="Solve the problem step by step. End with #### and the answer as a number.",
    description="Grade-school math word problems that take two to eight steps of basic arithmetic. Solutions show each "
    "calculation, annotated as <<48/2=24>>24.",
    max_new_tokens=320,
)
