import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.render import COMPONENTS, OVERLAYS, Resource, overlay, with_components
from tests.manifests.schema_check import problems


def test_every_object_of_every_overlay_has_its_kinds_schema_in_three_kubernetes_versions() -> None:
    assert problems([resource for name in OVERLAYS for resource in overlay(name)]) == []


def test_every_component_on_its_own_has_its_kinds_schemas(tmp_path: Path) -> None:
    resources = []
    for name in COMPONENTS:
        if name != "settings":  # which with_components always adds
            (tmp_path / name).mkdir()
            resources += with_components(tmp_path / name, [name])
    assert problems(resources) == []


def change(kind: str, path: str, value: Any) -> Callable[[list[Resource]], None]:
    """Sets `path` of the first object of a kind, and of all its missing parents."""

    def apply(resources: list[Resource]) -> None:
        place: Any = next(resource for resource in resources if resource["kind"] == kind)
        *parents, last = path.split(".")
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        place[last] = value

    return apply


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (change("Deployment", "spec.replica", 2), "'replica' was unexpected"),
        (change("Deployment", "spec.replicas", "two"), "Kubernetes 1.33: spec.replicas"),
        (change("NetworkPolicy", "spec.podSelecter", {}), "'podSelecter' was unexpected"),
        (change("PriorityClass", "value", "high"), "Kubernetes 1.37: value"),
        (change("PersistentVolumeClaim", "kind", "PersistantVolumeClaim"), "Couldn't find schema"),
        (change("ClusterQueue", "spec.cohort", "all"), "'cohort' was unexpected"),  # renamed in v1beta2
        (change("ClusterQueue", "apiVersion", "kueue.x-k8s.io/v1beta1"), "Couldn't find schema"),
        (change("ClusterQueue", "spec.resourceGroups.0.flavors.0.resources.0.nominalQuota", "many"), "does not match"),
        (change("ComputeClass", "spec.whenUnsatisfiable", "GiveUp"), "is not one of"),
        (change("ScaledObject", "spec.pollingInterval", "30s"), "pollingInterval must be integer"),
        (change("ScaledObject", "spec.minReplicas", 1), "'\"minReplicas\"' does not exist"),
        (change("ExternalSecret", "spec.refreshIntervall", "1h"), "'\"refreshIntervall\"' does not exist"),
        (change("PodMonitor", "spec.podMetricsEndpoints", {}), "podMetricsEndpoints must be array"),
        (
            change("NodePool", "spec.disruption.consolidationPolicy", "Never"),
            "consolidationPolicy must be equal to one",
        ),
        (change("EC2NodeClass", "spec.amiSelectorTerm", []), "'\"amiSelectorTerm\"' does not exist"),
    ],
)
def test_a_wrong_field_or_value_is_caught(break_it: Callable[[list[Resource]], None], says: str) -> None:
    resources = [*overlay("gke"), *(each for each in overlay("eks") if each["kind"] in ("NodePool", "EC2NodeClass"))]
    broken = copy.deepcopy(resources)
    break_it(broken)
    changed = [new for new, old in zip(broken, resources, strict=True) if new != old]
    assert any(says in sentence for sentence in problems(changed)), problems(changed)
