"""Small pipelines that use one feature of Kubeflow each."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

IMAGE = "toy:1"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def write(rows: int, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write("row\n" * rows)
    data.metadata["rows"] = rows


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def count(data: Input[Dataset], add: int = 1) -> int:
    with open(data.path) as file:
        return len(file.readlines()) + add


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def merge(parts: Input[list[Dataset]], whole: Output[Dataset]):
    with open(whole.path, "w") as file:
        for part in parts:
            with open(part.path) as source:
                file.write(source.read())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def above(number: int, limit: int) -> bool:
    return number > limit


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def say(text: str, given: dict, note: str = "none") -> str:
    return text + note + str(given)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def look(name: str) -> NamedTuple("Looked", [("digest", str), ("rows", int)]):
    return "sha256:" + name, 3


@dsl.pipeline(name="chain")
def chain(rows: int = 3):
    """An artifact, a parameter, a condition that holds and one that does not."""
    written = write(rows=rows)
    counted = count(data=written.outputs["data"])
    enough = above(number=counted.output, limit=2)
    with dsl.If(enough.output == True, name="iteration 1"):  # noqa: E712 - a condition of KFP
        again = count(data=written.outputs["data"], add=10)
        with dsl.If(again.output > 100, name="iteration 2"):
            write(rows=again.output)


@dsl.pipeline(name="fan")
def fan():
    """A loop over fixed items, and what it made collected: numbers and artifacts."""
    with dsl.ParallelFor(items=[1, 2, 3]) as item:
        written = write(rows=item)
        counted = count(data=written.outputs["data"])
    total(numbers=dsl.Collected(counted.output))
    merge(parts=dsl.Collected(written.outputs["data"]))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def both(left: Input[Dataset], right: Input[Dataset]) -> int:
    return 2


@dsl.pipeline(name="two-names")
def two_names():
    """One artifact under two names of one task."""
    written = write(rows=3)
    both(left=written.outputs["data"], right=written.outputs["data"])


@dsl.pipeline(name="texts")
def texts(text: str = "", given: dict = {}):  # noqa: B006 - KFP reads the default
    """A parameter straight to a stage, and once more through another stage's output."""
    first = say(text=text, given=given)
    say(text=first.output, given={})


@dsl.pipeline(name="cached")
def cached(name: str = "data"):
    """An uncached task that looks at the data and returns values; all behind it can be found in the cache."""
    looked = look(name=name)
    looked.set_caching_options(False)
    written = write(rows=looked.outputs["rows"])
    count(data=written.outputs["data"])


@dsl.pipeline(name="uncached-artifact")
def uncached_artifact():
    """An uncached task that returns an artifact, so that nothing behind it is found in the cache."""
    written = write(rows=2)
    written.set_caching_options(False)
    count(data=written.outputs["data"])


@dsl.pipeline(name="one")
def one():
    """One task without retries."""
    write(rows=1)


@dsl.pipeline(name="one-with-retry")
def one_with_retry():
    """One task with two retries."""
    write(rows=1).set_retry(num_retries=2, backoff_duration="1s", backoff_max_duration="60s")


@dsl.pipeline(name="guarded")
def guarded():
    """An exit handler."""
    last = write(rows=9)
    with dsl.ExitHandler(exit_task=last):
        count(data=write(rows=1).outputs["data"])
