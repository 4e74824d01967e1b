"""Teachers without a language model: a grammar, a pool of labelled rows, edits of the text."""
