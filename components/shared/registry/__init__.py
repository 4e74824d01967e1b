"""The registry: every student that was ever good enough, and which of them is in production.

    <registry>/versions/<version>/     an immutable folder that transformers, peft and vLLM load as it is
        model.safetensors, config.json, tokenizer.json, ...     or the adapter's files
        README.md                  the model card
        llm2llm.json               what the student is and how it was made (`records.Record`)
        validation_answers.json    which validation rows it answers right (`records.Answers`)
        trained_on.json            the ids of the rows that it was trained on (`records.TrainedOn`)
        MANIFEST.json              sizes and hashes; written last
    <registry>/production/000001, ...  the pointer: one JSON object for each time it moved (`production.Generation`)
    <registry>/candidates/<run>/       a folder like a version's: the best student so far of a run
    <registry>/tried/<key>.json        verdicts on students that were not good enough (`tried`)

A registry is a local folder or an `s3://` prefix. A version's name ends in a hash of its content, so the same student
is the same version, whoever made it; times and runs are in the pointer. Of those who move the pointer at the same
moment exactly one does, and the others learn of it. Nothing in `versions` and `production` is changed or removed here:
what the pointer never named may go (`llm2llm clean`).
"""
