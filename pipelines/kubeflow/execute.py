"""Runs one stage as KFP's executor does, from the code in the image.

    python3 -m llm2llm.pipelines.kubeflow.execute kfp.dsl.executor_main --function_to_execute train --executor_input ...

A compiled pipeline usually carries the source of each function; `compact` leaves it out, as the image has it. The first
argument is what KFP's local runner looks for in the command of a Python function.
"""

import argparse
import json


def main() -> None:
    """Reads the arguments of `kfp.dsl.executor_main`, and calls the stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["kfp.dsl.executor_main"])
    parser.add_argument("--function_to_execute", required=True)
    parser.add_argument("--executor_input", required=True)
    arguments, _ = parser.parse_known_args()

    from kfp.dsl.executor import Executor
    from kfp.dsl.types.type_annotations import maybe_strip_optional_from_annotation

    from llm2llm.pipelines.kubeflow.components import component

    function = component(arguments.function_to_execute).python_func
    # A backend says of an input artifact neither its type's name nor its version; kfp 2.17 then makes an instance of
    # the annotation, and of `Input[Model] | None` there is none.
    function.__annotations__ = {
        name: maybe_strip_optional_from_annotation(annotation) for name, annotation in function.__annotations__.items()
    }
    Executor(executor_input=json.loads(arguments.executor_input), function_to_execute=function).execute()


if __name__ == "__main__":
    main()
