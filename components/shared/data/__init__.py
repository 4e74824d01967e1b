"""The rows that flow between stages (`kinds`), their files (`files`), and the rows that users bring (`sources`)."""
