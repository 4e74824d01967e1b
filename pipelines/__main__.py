"""`python -m llm2llm.pipelines`: the command line without its script."""

from llm2llm.pipelines.cli.main import main

main()
