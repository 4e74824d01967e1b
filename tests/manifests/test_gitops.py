import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.manifests.policies import no_secret_values, references_exist
from tests.manifests.render import MANIFESTS, render
from tests.manifests.schema_check import problems


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("pipeline_version", MANIFESTS / "gitops" / "pipeline_version.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rendered(script: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gitops") / "out"
    script.main(["quickstart", str(folder), "--set", "placement.profile=gke"])
    return render(folder)


def test_data_of_this_machine_is_refused(script: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: data\.seeds \(seeds\.csv\): on this machine"):
        script.main(["quickstart", str(tmp_path / "out"), "--set", "data.seeds=seeds.csv"])
    assert not (tmp_path / "out").exists()


def test_what_is_generated_is_a_pipeline_and_a_version_of_it_with_their_schemas(rendered: list[dict[str, Any]]) -> None:
    assert [each["kind"] for each in rendered] == ["Pipeline", "PipelineVersion"]
    assert problems(rendered) == []
    assert [*references_exist(rendered), *no_secret_values(rendered)] == []


def test_a_version_of_another_pipeline_or_with_another_field_is_caught(rendered: list[dict[str, Any]]) -> None:
    pipeline, version = rendered
    other = {**version, "spec": {**version["spec"], "pipelineName": "other"}}
    assert "refers to Pipeline other" in next(iter(references_exist([pipeline, other])))
    extra = {**version, "spec": {**version["spec"], "pipeline": "quickstart"}}
    assert "'pipeline' was unexpected" in problems([pipeline, extra])[0]


def test_the_version_holds_what_kubeflows_own_protocol_buffers_hold(rendered: list[dict[str, Any]]) -> None:
    spec = rendered[1]["spec"]
    parsed = json_format.ParseDict(spec["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == rendered[0]["metadata"]["name"] == spec["pipelineName"]
    platform = json_format.ParseDict(spec["platformSpec"], pipeline_spec_pb2.PlatformSpec())
    assert "kubernetes" in platform.platforms


def test_the_same_config_gives_the_same_bytes_and_a_changed_one_another_version(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, said = [], []
    for name, arguments in (("a", ()), ("b", ()), ("c", ("--set", "train.epochs=2"))):
        script.main(["quickstart", str(tmp_path / name), *arguments])
        said.append(capsys.readouterr().out.split()[1])
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert said[0] == said[1] != said[2]
    assert files[0]["pipeline.yaml"] == files[2]["pipeline.yaml"]
    assert files[0]["pipelineversion.yaml"] != files[2]["pipelineversion.yaml"]


def test_a_wrong_config_is_one_line_and_leaves_no_folder(script: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main(["quickstart", str(tmp_path / "out"), "--set", "train.epoch=2"])
    assert str(stopped.value).startswith("error: ")
    assert "epoch" in str(stopped.value)
    assert not (tmp_path / "out").exists()
