"""Stage `notify`: tells a webhook how the run ended. The exit task of a run in a cluster."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def notify(name: str, ending: str, status: PipelineTaskFinalStatus) -> None:
    """Tells a webhook how the run ended; one message, whatever the ending.

    Args:
        name: The pipeline's name.
        ending: notify of the config, and the registry, as JSON.
        status: How Kubeflow says that the other stages ended.
    """
    from llm2llm.components.notify.exit_task import tell
    from llm2llm.components.shared.stage import stage_lifecycle

    with stage_lifecycle("notify"):
        print(tell(name, ending, status.state or "", status.pipeline_job_resource_name or ""), flush=True)
