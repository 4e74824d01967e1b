"""The command line `llm2llm`."""
