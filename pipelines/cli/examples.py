"""The examples in the help of each command; a test parses every one of them."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "run quickstart --output quickstart",
        "run tickets.yaml -o out --set train.epochs=2 --set random_seed=1",
        "run tickets.yaml -o out --runner docker",
    ),
    "rerun": ("rerun out --from train -o out2", "rerun out --from teacher_augment --iteration 2 -o out2"),
    "sweep": (
        "sweep selection --output selection",
        "sweep mine.yaml -o out --submit --host https://kubeflow.example.org/pipeline --pipeline-root s3://bucket/runs",
    ),
    "compile": ("compile tickets.yaml -o pipeline.yaml --set placement.profile=gke",),
    "plan": ("plan tickets.yaml --set placement.profile=gke",),
    "preflight": (
        "preflight tickets.yaml",
        "preflight tickets.yaml --cluster --host https://kubeflow.example.org/pipeline",
    ),
    "config": ("config", "config snips > tickets.yaml"),
    "submit": (
        "submit tickets.yaml --wait --host https://kubeflow.example.org/pipeline --pipeline-root s3://bucket/runs",
    ),
    "schedule set": ("schedule set tickets.yaml --cron '0 2 * * 0' --host https://kubeflow.example.org/pipeline",),
    "schedule list": ("schedule list --host https://kubeflow.example.org/pipeline",),
    "schedule pause": ("schedule pause tickets",),
    "schedule resume": ("schedule resume tickets",),
    "schedule delete": ("schedule delete tickets --force",),
    "inspect why": (
        "inspect why fcde5141 --run quickstart",
        "inspect why fcde5141 --run s3://bucket/runs/tickets --json",
    ),
    "inspect diff": ("inspect diff quickstart quickstart-random",),
    "inspect show": (
        "inspect show training_set --run quickstart --limit 5",
        "inspect show out/artifacts/*/dedupe/next_training_set --limit 5",
    ),
    "ledger list": ("ledger list s3://bucket/ledger",),
    "ledger show": ("ledger show quickstart/ledger", "ledger show s3://bucket/ledger 632548674082bc7a1ed6c8510f94e2f7"),
    "registry list": ("registry list --registry s3://bucket/registry",),
    "registry show": ("registry show --registry s3://bucket/registry --check",),
    "registry promote": ("registry promote tickets-425ec42714a9 --registry s3://bucket/registry --yes",),
    "registry verify": ("registry verify --registry s3://bucket/registry",),
    "registry rollback": ("registry rollback --registry s3://bucket/registry",),
    "registry serve": ("registry serve --share 50 --registry s3://bucket/registry",),
    "predict": (
        "predict --student out --input new.csv --output answered.csv",
        "predict --student s3://bucket/registry/versions/tickets-425ec42714a9 --input new.jsonl --mode score",
    ),
    "label": ("label traces.jsonl --config tickets.yaml --to seeds2.jsonl --with-seeds --student out",),
    "review export": (
        "review export out --to review.csv",
        "review export out --to tasks.json --format label-studio --unsure 200",
    ),
    "review import": ("review import review.csv --run out --to seeds2.jsonl",),
    "export": (
        "export out --to train.jsonl --format messages",
        "export out --to test.csv --rows test",
        "export out --push me/tickets --lineage",
    ),
    "convert": (
        "convert out --format int8 --to out-int8",
        "convert s3://bucket/registry/versions/tickets-425ec42714a9 --format gguf-q8_0 --run out --to tickets-gguf",
    ),
    "grade": ("grade --task gsm8k --input completions.jsonl --output graded.jsonl",),
    "clean": ("clean --older-than 30d --run-root s3://bucket/runs --registry s3://bucket/registry",),
    "completion": ("completion bash >> ~/.bashrc",),
}
