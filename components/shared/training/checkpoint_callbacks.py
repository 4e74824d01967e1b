"""The hooks by which transformers' Trainer writes checkpoints and goes on from one; `checkpoints` keeps them."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, gather_object
from peft import PeftModel, get_peft_model
from transformers import TrainerCallback

from llm2llm.components.shared.training.checkpoints import PROGRESS_FILE, Checkpoints
from llm2llm.components.shared.training.devices import this_process
from llm2llm.components.shared.training.sampler import Order
from llm2llm.components.shared.training.settings import FineTuneSettings

_ARGUMENTS = "training_args.bin"
"""The Trainer's own arguments, pickled, which nothing reads."""


class Measures(Protocol):
    """A callback that measures something on the way, which is a part of a checkpoint."""

    def measured(self) -> dict[str, Any]:
        """What has been measured so far, as JSON has it."""

    def resume(self, measured: Mapping[str, Any]) -> None:
        """Goes on from there."""


class SaveCheckpoints(TrainerCallback):
    """Asks the Trainer for a checkpoint when one is due, and hands it to be stored.

    Args:
        checkpoints: Where to.
        order: The order of the rows, of which the state is a part of a checkpoint.
        measures: What else is.
        settings: How often.
    """

    def __init__(
        self, checkpoints: Checkpoints, order: Order, measures: Sequence[Measures], settings: FineTuneSettings
    ) -> None:
        self._checkpoints, self._order, self._measures = checkpoints, order, measures
        self._steps, self._minutes = settings.checkpoint_steps, settings.checkpoint_minutes
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = bool(self._steps) and state.global_step % self._steps == 0
        if self._minutes and not due:
            due = agreed(time.monotonic() - self._last >= 60 * self._minutes)
        control.should_save = due and state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        here = this_process()
        random_states = _from_all_nodes(folder)
        here.wait_for_everyone()  # each process has written its own part
        if not here.is_main_process:
            return
        with self._checkpoints.tolerated(state.global_step):
            # What was not written whole lacks the last file that the Trainer writes.
            if not (folder / "trainer_state.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                return
            for name, content in random_states.items():
                (folder / name).write_bytes(content)
            (folder / _ARGUMENTS).unlink(missing_ok=True)
            # At an epoch's end the next one's order is drawn from what the Trainer restores.
            drawn_with = self._order.state() if state.epoch % 1 else None
            progress: dict[str, Any] = {"drawn_with": drawn_with}
            for one in self._measures:
                progress |= one.measured()
            (folder / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")
            self._checkpoints.store(folder, state.global_step)


def agreed(answer: bool) -> bool:
    """The first process's answer, in all of them: their clocks and disks differ."""
    if this_process().num_processes == 1:
        return answer
    answers = [answer]
    broadcast_object_list(answers)
    return answers[0]


def _from_all_nodes(folder: Path) -> dict[str, bytes]:
    """The states of the random generators, where other nodes' processes have written theirs to other disks."""
    here = this_process()
    if here.num_processes == int(os.environ.get("LOCAL_WORLD_SIZE", here.num_processes)):
        return {}
    path = folder / f"rng_state_{here.process_index}.pth"
    mine = {path.name: path.read_bytes()} if path.is_file() else {}
    return {name: content for one in gather_object([mine]) for name, content in one.items()}


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A temporary folder that all processes of a node have in common: of one name on every node.

    It is removed when all have left the block: the Trainer lists it once more when the last step is done.
    """
    here = this_process()
    name = [Path(tempfile.mkdtemp(prefix="llm2llm-train-")).name if here.is_main_process else ""]
    if here.num_processes > 1:
        broadcast_object_list(name)
    folder = Path(tempfile.gettempdir()) / name[0]
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        yield folder
        here.wait_for_everyone()
    finally:
        if here.is_local_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def resume_from(checkpoints: Checkpoints, order: Order, measures: Sequence[Measures], folder: Path) -> str | None:
    """Finds the newest whole checkpoint, and puts back the order and what was measured; one on a server is fetched into
    `folder` on every node.

    Returns:
        What the Trainer resumes from; None: there is none.

    Raises:
        UserError: The place of the checkpoints cannot be read.
    """
    here = this_process()
    found = checkpoints.newest(folder) if here.is_main_process else None
    if here.num_processes > 1:
        name = [str(found) if found else None]  # the same on every node
        broadcast_object_list(name)
        if name[0] is not None and here.is_local_main_process and not here.is_main_process:
            checkpoints.newest(folder)
        here.wait_for_everyone()
        found = Path(name[0]) if name[0] is not None else None
    if found is None:
        return None
    progress = json.loads((found / PROGRESS_FILE).read_text(encoding="utf-8"))
    if progress["drawn_with"] is not None:
        order.resume(progress["drawn_with"])
    for one in measures:
        one.resume(progress)
    return str(found)


def step_of(checkpoint: str | None) -> int:
    """After how many steps a checkpoint that `resume_from` gave was written; 0 for None."""
    return int(checkpoint.rpartition("-")[2]) if checkpoint else 0


def whole_model(trainer: Any) -> Any:
    """The trained model with all its weights in the first process, also where each process holds a part of it.

    All processes must call it.
    """
    if not trainer.is_fsdp_enabled:
        return trainer.model
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if not this_process().is_main_process:
        return trainer.model
    trained = trainer.accelerator.unwrap_model(trainer.model)
    adapted = isinstance(trained, PeftModel)
    base = trained.get_base_model() if adapted else trained
    with torch.device("meta"):  # room for a second student is not needed: it takes the weights as they are
        whole = type(base)._from_config(base.config)
        whole.generation_config = base.generation_config
        if adapted:
            whole = get_peft_model(whole, trained.peft_config["default"])
    whole.load_state_dict(weights, assign=True)
    (whole.get_base_model() if adapted else whole).tie_weights()
    return whole
