"""Where everything comes from: hashes of artifacts, what made them (`records`), and a run's manifest (`manifest`).

Every stage hashes what it is handed and what it leaves, and writes its record into the metadata of its outputs, where
the next stage and Kubeflow find it. The report collects the records into the run's manifest. `llm2llm why` and
`llm2llm diff` read a finished run (`run_files`): `why` and `diff` find the facts, `texts` puts them into words.
"""
