"""Settings of fine-tuning; `train` and `out_of_fold` share them."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.chat import ChatSettings

OWN_ANSWERS = "own_answers"
"""The strategy of rows that are right answers of the student's own."""

SCRATCH = "scratch"
"""The name of the student that is built from `ScratchSettings` instead of loaded."""


CLASSIFIER = "classifier"
"""`train.head` of a student that scores labels instead of writing them."""

USUAL_RATES = {"full": 2e-5, "hft": 2e-5, "lora": 2e-4, "qlora": 2e-4, SCRATCH: 1e-3}
"""Peak learning rates that teach, by method and for a student from scratch."""

CLASSIFIER_RATE = 3e-5
"""That of all weights of a classifier: the middle one of those that Devlin et al. 2019 (BERT) tried."""


class ScratchSettings(Settings):
    """A small Llama with random weights and a byte-level BPE tokenizer learnt from the seeds: for a laptop."""

    vocabulary: int = Field(1024, ge=260)
    """Tokens, the 256 bytes included: no text is unknown to it."""
    hidden_size: int = Field(128, ge=8)
    """Width; a multiple of `heads`."""
    layers: int = Field(4, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    context: int = Field(512, ge=16)
    """Longest prompt and completion together, in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of twice heads ({2 * self.heads}), as rotary "
                "position embeddings need"
            )
        return self


class OwnAnswersSettings(Settings):
    """The student's own answers to the questions of its training set, graded by the task's rule."""

    samples: int = Field(0, ge=0, le=100)
    """How often the trained student answers each question, those of generated rows too; 0: never. `join` and
    `train.preference` say what becomes of the answers. No teacher is asked."""
    temperature: float = Field(0.8, gt=0, le=2)
    """Sampling temperature."""
    join: int = Field(0, ge=0, le=100)
    """The most right answers to a question, distinct from its row's and from one another, that become rows of this
    training; the student is then trained once more from where it began (rejection sampling; Yuan et al. 2023, Setlur
    et al. 2024). Only where the task writes a rationale: an answer alone is no new row."""


class PreferenceSettings(Settings):
    """A preference step after the supervised one: the row's completion against wrong answers of the student's own. DPO
    (Rafailov et al. 2023) with the likelihood of the right completion beside it (Pang et al. 2024, iterative reasoning
    preference optimization)."""

    epochs: float = Field(0, ge=0)
    """Passes over the pairs; 0: no such step. Needs `train.own_answers.samples`."""
    pairs: int = Field(1, ge=1, le=100)
    """The most pairs of a question, each with another wrong answer."""
    beta: float = Field(0.1, gt=0)
    """How strongly the student is held to what it was before the step."""
    nll: float = Field(1.0, ge=0)
    """The weight of the right completion's mean negative log-likelihood; 0: DPO alone."""
    learning_rate: float = Field(0.1, gt=0)
    """Peak learning rate as a share of `train.learning_rate`."""


class DistillSettings(Settings):
    """A distillation after the supervised step: the student answers its training questions itself, and learns the
    distribution that an open teacher has at each token (GKD, Agarwal et al. 2024; TRL's trainer). Row weights, soft
    labels, packing, replay and rationales that are a second task are matters of the supervised step alone."""

    model: str = ""
    """The teacher: a Hugging Face name or a folder (full weights or adapter) of a model with the student's own
    vocabulary, loaded beside the student. Empty: no such step. An endpoint will not do: the whole distribution is
    compared, and servers tell the likeliest tokens alone."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training set."""
    on_policy: float = Field(1.0, ge=0, le=1)
    """The share of the batches in which the student writes; in the others the rows' own completions are learnt."""
    beta: float = Field(0.5, ge=0, le=1)
    """The divergence: 0 the Kullback-Leibler divergence from the teacher to the student, 1 the reverse, which seeks one
    mode; between them the generalised Jensen-Shannon divergence."""
    temperature: float = Field(0.9, gt=0, le=2)
    """Sampling temperature of what the student writes, up to `task.max_new_tokens` or, if that is more, the length of
    the longest right answer."""
    learning_rate: float = Field(0.1, gt=0)
    """Peak learning rate as a share of `train.learning_rate`."""


class FineTuneSettings(Settings):
    """The `train` section of a config. The defaults are those of the paper (Lee et al. 2024) where it names one."""

    method: Literal["full", "lora", "qlora", "hft"] = "full"
    """`full` trains every weight. `lora`: a low-rank adapter (Hu et al. 2021). `qlora`: the same on a base in 4 bits
    (Dettmers et al. 2023), which needs bitsandbytes. `hft`: half of each block's weight matrices, another half in each
    iteration, the others stay as they are (Hui et al. 2024)."""
    head: Literal["language_model", "classifier"] = "language_model"
    """What the student ends in. `language_model`: it writes the answer. `classifier`: it has one score for each label
    of the task, and is far cheaper to serve: an encoder (BERT, RoBERTa, DeBERTa, ModernBERT ...), or a decoder (Llama,
    Qwen ...) whose last token is scored; `AutoModelForSequenceClassification` loads it. It reads the question alone,
    without instruction and cues, and is asked with `evaluate.mode: score`. Only for form `classification` without
    rationales, and with methods `full`, `hft` and `lora` (merged)."""
    start_from: Literal["base", "previous"] = "base"
    """`base`: each iteration trains the base model afresh (the paper); `previous`: it goes on with the last student."""
    epochs: float = Field(3, gt=0)
    """Passes over the training set."""
    max_steps: int = Field(0, ge=0)
    """When above 0: this many optimiser steps instead of `epochs`, so that a larger training set costs no more."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate. Where it is not set: 2e-5 for `full` and `hft` (3e-5 with `head: classifier`), 2e-4 for
    `lora` and `qlora`. A student from scratch takes 1e-3."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    optim: str = ""
    """The optimiser by its name in transformers (`TrainingArguments.optim`), such as adamw_8bit, paged_adamw_8bit or
    adafactor; some need a package of their own. Empty: AdamW."""
    optim_args: str = ""
    """Arguments of `optim`, such as `rank=64, scale=1.0` for galore_adamw."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients of a larger norm are scaled down to it; 0: never."""
    batch_size: int = Field(8, ge=1)
    """The most rows in one forward pass of a device; with `packing`, sequences of packed rows. Halved where they do not
    fit into memory with `activation_checkpointing`."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes in one optimiser step on one device. A step sees `batch_size * gradient_accumulation` rows on any
    number of devices, of which that product must be a multiple."""
    max_length: int = Field(1024, ge=16)
    """The longest row in tokens, prompt and completion together, where the student's context is not shorter still;
    `too_long` says what becomes of longer ones."""
    too_long: Literal["drop", "truncate", "refuse"] = "drop"
    """`drop`: rows that are too long are left out. `truncate`: their prompts lose tokens from the middle, so that the
    instruction before it and the answer cue after it stay; a row whose completion leaves no room is left out.
    `refuse`: one such row stops the training. What is cut or left out is counted in log, metrics and `training.json`.
    """
    loss_on: Literal["completion", "all"] = "completion"
    """`completion`: the student learns to answer. `all`: it learns to write the prompt as well, which helps where
    completions are short and rows are few (Instruction Modelling, Shi et al. 2024)."""
    packing: bool = False
    """Whether to put several rows into one sequence of at most `max_length` tokens, where they do not attend to one
    another: nothing is spent on padding. A step then sees more rows, so mind the number of steps."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each label has the same part in the loss, however many rows it has and however long it is. Only for
    classification and multiple choice."""
    row_weights: Literal["none", "confidence", "imp", "dimp"] = "none"
    """What generated rows weigh in the loss; seeds weigh 1. `confidence`: the share of the verifier's votes that a row
    has, or how sure the judge is. `imp` and `dimp` (Kuo et al. 2024): what a checker trained on the seeds gives the
    row's label, over what another trained on the generated rows gives it (`imp`: two more trainings) or the student in
    training gives it at that step (`dimp`: one more). A row whose label is likely wrong weighs little; one that is
    likely right and not learnt yet, much. `imp` and `dimp` are for classification and multiple choice."""
    soft_labels: bool = False
    """Whether a generated row that was solved blind (`teacher_augment.verify: resolve`, `agree`) is trained on all
    labels that its solutions gave, each with its share, and not on its own label alone: cross-entropy with the votes.
    A label more is a row more in a step's batch. For classification and multiple choice."""
    neftune_alpha: float = Field(0.0, ge=0)
    """Noise on the embeddings of a training batch (NEFTune, Jain et al. 2023, who take 5); 0: none."""
    replay_fraction: float = Field(0.0, ge=0, le=10)
    """General rows (`data.replay`) to mix in, as a share of the training rows: 0.1 adds one to ten. Against forgetting,
    most useful with `start_from: previous`. Which rows, changes with the iteration."""
    lora_rank: int = Field(16, ge=1)
    """LoRA only: rank of the update."""
    lora_alpha: int = Field(32, ge=1)
    """LoRA only: the update is scaled by alpha / rank."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """LoRA only: dropout before the adapter."""
    lora_targets: Literal["all-linear"] | list[str] = "all-linear"
    """LoRA only: the layers to adapt by the ends of their names, such as [q_proj, v_proj]; `all-linear`: every linear
    layer of the blocks, whatever the architecture calls them. Of a state-space block (Mamba, Jamba, Falcon-H1 ...) that
    is the first projection alone, as its kernels take the other weights past an adapter; of a mixture of experts the
    attention."""
    lora_experts: bool = False
    """LoRA only: whether the experts of a mixture get adapters too, one each: many more weights, and `lora_dropout`
    must be 0."""
    dora: bool = False
    """LoRA only: direction and magnitude apart (DoRA, Liu et al. 2024)."""
    rslora: bool = False
    """LoRA only: the update is scaled by alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023)."""
    merge: bool = False
    """LoRA only: whether to save the whole model with the adapter worked in, instead of the adapter alone. Where it is
    not set: with `head: classifier`, as an adapter alone says nothing of its labels."""
    bf16_weights: bool = False
    """`full` and `hft` on a GPU: whether weights and AdamW's moments are kept in bfloat16 while they are trained: half
    the memory. Each step is then rounded up or down at random, so that small ones are not lost. Off: only the
    arithmetic is in bfloat16."""
    activation_checkpointing: bool = False
    """Whether to compute activations again on the way back instead of keeping them: less memory, a third more time.
    Off: only once the memory does not suffice, before fewer rows at once are tried."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = "auto"
    """The implementation of attention while training, by its name in transformers. `auto`: the student's own, and with
    `packing` flash_attention_2 where it is installed. The flash ones need a package of their own and a GPU."""
    liger: bool = False
    """Whether to use Liger's fused layers (norms, rotary positions, gated MLPs; Hsu et al. 2024) while training: less
    memory, the same mathematics. Needs the package liger-kernel and a GPU."""
    gpus: int = Field(0, ge=0)
    """Devices to train on in this pod; 0: every GPU that the process sees. Without a GPU: processes on the CPU."""
    nodes: int = Field(1, ge=1)
    """Pods to train on, `gpus` devices each."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """Several devices only. `ddp`: each holds the whole student; `fsdp`: each holds a part of it (FSDP2), for all
    methods but `qlora`."""
    checkpoint_uri: str = ""
    """Where checkpoints are kept, such as s3://bucket/folder, so that a retry in another pod goes on from the newest;
    empty: in this machine's temporary folder. They are removed when the student is saved."""
    checkpoint_minutes: float = Field(10, ge=0)
    """Minutes between checkpoints; 0: none by the clock."""
    checkpoint_steps: int = Field(0, ge=0)
    """Optimiser steps between checkpoints; 0: none by the number of steps."""
    report_to: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default=[])
    """Where the loss goes besides log and `training.json`; each needs its own package and environment variables."""
    record_losses: bool = False
    """Whether to measure each seed's loss before training and after the first epoch (or at the end of a shorter
    training), for the selections `learnable` and `hard` by `learning_percentage`. Two passes over the seeds; the
    training stays the same."""
    validation_loss: bool = False
    """Whether to measure the mean loss on the validation rows at the end of each epoch: that it rises while the
    training loss falls says that the student learns its rows by heart. A pass over them each; the training stays the
    same. Fixed when the pipeline is compiled."""
    scratch: ScratchSettings = ScratchSettings()
    """Only for `student: scratch`."""
    own_answers: OwnAnswersSettings = OwnAnswersSettings()
    """What becomes of the student's own answers. `out_of_fold` and `controls` train without."""
    preference: PreferenceSettings = PreferenceSettings()
    """Right completions against the student's own wrong ones."""
    distill: DistillSettings = DistillSettings()
    """An open teacher's distribution on what the student writes. `tune`, `out_of_fold` and `controls` train without."""
    trust_remote_code: bool = False
    """Whether to run code that a model repository brings along. Off: such a model is refused."""

    @model_validator(mode="before")
    @classmethod
    def _unset_by_method_and_head(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        usual: dict[str, Any] = {}
        method, classifies = values.get("method", "full"), values.get("head") == CLASSIFIER
        if isinstance(method, str) and method in USUAL_RATES:
            usual["learning_rate"] = USUAL_RATES[method]
        if classifies and method in ("full", "hft"):
            usual["learning_rate"] = CLASSIFIER_RATE
        if classifies and method == "lora":
            usual["merge"] = True
        return {**usual, **values}

    @property
    def adapts(self) -> bool:
        """Whether the method trains an adapter, and leaves the base as it is."""
        return self.method in ("lora", "qlora")

    @model_validator(mode="after")
    def _adapter_keys_fit(self) -> Self:
        for key, off in (
            ("dora", False),
            ("rslora", False),
            ("merge", False),
            ("lora_experts", False),
            ("lora_targets", "all-linear"),
        ):
            if getattr(self, key) != off and not self.adapts:
                raise ValueError(
                    f"{key}: {getattr(self, key)} is for an adapter, and method is {self.method!r}; remove it, or set "
                    "method to lora or qlora"
                )
        if self.sharding == "fsdp" and self.method == "qlora":
            raise ValueError(
                "sharding: 'fsdp' does not share out a base in 4 bits (method: qlora); set method: lora, or sharding: "
                "ddp"
            )
        for key in ("lora_dropout", "dora"):
            if self.lora_experts and getattr(self, key):
                raise ValueError(
                    f"{key}: {getattr(self, key)} is not for adapters on experts (lora_experts: true); set "
                    f"{key}: {'0' if key == 'lora_dropout' else 'false'}"
                )
        if self.lora_targets == []:
            raise ValueError("lora_targets: an empty list; name layers, or say all-linear")
        if self.bf16_weights and self.adapts:
            raise ValueError(f"bf16_weights: for methods full and hft, and method is {self.method!r}; remove it")
        if self.bf16_weights and self.sharding == "fsdp":
            raise ValueError("bf16_weights: not with sharding 'fsdp'; remove it, or set sharding: ddp")
        if self.bf16_weights and self.optim:
            raise ValueError(
                f"optim: {self.optim!r} loses small steps on bf16_weights, which have an AdamW of their own; remove "
                "one of the two"
            )
        if self.optim_args and not self.optim:
            raise ValueError(f"optim_args: {self.optim_args!r} are arguments of optim, which is not set; set it")
        if self.has_checkers and self.nodes > 1:
            raise ValueError(
                f"row_weights: {self.row_weights!r} asks a checker in this pod, and nodes is {self.nodes}; set nodes: 1"
            )
        if self.row_weights == "dimp" and self.soft_labels:
            raise ValueError(
                "soft_labels: true trains a row on several labels, and row_weights 'dimp' weighs one; set soft_labels: "
                "false, or row_weights: imp"
            )
        if self.row_weights == "dimp" and self.loss_on != "completion":
            raise ValueError(
                f"row_weights: 'dimp' weighs answers, and loss_on is {self.loss_on!r}; set loss_on: completion"
            )
        return self

    @model_validator(mode="after")
    def _own_answers_fit(self) -> Self:
        own, step = self.own_answers, self.preference
        if step.epochs and not own.samples:
            raise ValueError(
                f"preference.epochs: {step.epochs:g} needs own answers that are wrong, and own_answers.samples is 0; "
                "set it to 4, say"
            )
        if own.join and not own.samples:
            raise ValueError(
                f"own_answers.join: {own.join} needs answers, and own_answers.samples is 0; set it to 4, say"
            )
        if own.samples and not (own.join or step.epochs):
            raise ValueError(
                f"own_answers.samples: {own.samples} answers that nothing is made of; set own_answers.join or "
                "preference.epochs"
            )
        if own.samples and self.nodes > 1:
            raise ValueError(f"own_answers: the student answers in this pod, and nodes is {self.nodes}; set nodes: 1")
        if step.epochs and self.sharding == "fsdp":
            raise ValueError("preference: not with sharding 'fsdp'; remove it, or set sharding: ddp")
        if step.epochs and self.bf16_weights:
            raise ValueError("preference: not with bf16_weights, which has an optimiser of its own; remove one of them")
        return self

    @model_validator(mode="after")
    def _distillation_fits(self) -> Self:
        if not self.distill.model:
            if self.distill != DistillSettings():
                raise ValueError("distill.model: missing; name the teacher, or remove distill")
            return self
        for key, found, fitting, why in (
            ("head", self.head, "language_model", "needs a student that writes"),
            ("method", self.method if self.method == "qlora" else "lora", "lora", "has no base in 4 bits"),
            ("sharding", self.sharding, "ddp", "has the teacher whole on each device"),
            ("nodes", self.nodes, 1, "trains in one pod"),
            ("bf16_weights", self.bf16_weights, False, "has an optimiser of its own"),
            ("liger", self.liger, False, "needs whole logits"),
            ("own_answers.samples", self.own_answers.samples, 0, "is a step after the supervised one, as theirs are"),
        ):
            if found != fitting:
                raise ValueError(
                    f"distill.model: not with {key}: {_yaml(found)}, as distillation {why}; set {key}: "
                    f"{_yaml(fitting)}, or remove distill"
                )
        return self

    @model_validator(mode="after")
    def _classifier_fits(self) -> Self:
        if not self.classifies:
            return self
        for key, found, fitting, why in (
            ("method", self.method, ("full", "hft", "lora"), "whose head is not trained on a base in 4 bits"),
            ("merge", self.merge, (self.method == "lora",), "whose adapter alone would say nothing of its labels"),
            ("sharding", self.sharding, ("ddp",), "which is trained whole on each device"),
            ("packing", self.packing, (False,), "which reads one text at a time"),
            ("loss_on", self.loss_on, ("completion",), "which learns labels and no text"),
            ("replay_fraction", self.replay_fraction, (0.0,), "and general rows have no label"),
            ("liger", self.liger, (False,), "for which it has no layers"),
            ("own_answers.samples", self.own_answers.samples, (0,), "which writes no answers"),
        ):
            if found not in fitting:
                raise ValueError(
                    f"{key}: {_yaml(found)!r} is not for head 'classifier', {why}; set {key}: {_yaml(fitting[-1])}, "
                    "or head: language_model"
                )
        return self

    @property
    def classifies(self) -> bool:
        """Whether the student is a classifier."""
        return self.head == CLASSIFIER

    @property
    def has_checkers(self) -> bool:
        """Whether students are trained first to say what generated rows weigh."""
        return self.row_weights in ("imp", "dimp")


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _check_classified(task: Task) -> None:
    form = FORMS[task.form]
    if not form.has_labels:
        known = " or ".join(repr(name) for name, one in FORMS.items() if one.has_labels)
        raise ValueError(
            f"head: 'classifier' scores the labels of a task, and task {task.name!r} of form {task.form!r} has none "
            f"that are known before the training; set head: language_model, or a task of form {known}"
        )
    for key, has, why, fix in (
        ("rationale", task.rationale, "writes no rationales", "set task.rationale: false"),
        (
            "describe_labels_to: both",
            task.describe_labels_to == "both",
            "reads the question alone",
            "set task.describe_labels_to: teacher",
        ),
        ("chat", task.chat != ChatSettings(), "has no chat template", "remove task.chat"),
    ):
        if has:
            raise ValueError(
                f"head: 'classifier' {why}, and task {task.name!r} has {key}; {fix}, or set head: language_model"
            )


def check_task(settings: FineTuneSettings, task: Task) -> None:
    """Checks that a task has what the settings ask for.

    Raises:
        ValueError: It has not; names the key below `train` and the fix.
    """
    if settings.classifies:
        _check_classified(task)
    if settings.has_checkers and not FORMS[task.form].has_classes:
        raise ValueError(
            f"row_weights: {settings.row_weights!r} asks for the probabilities of labels or choices, and task "
            f"{task.name!r} has neither (form {task.form!r}); set row_weights: none or confidence"
        )
    if settings.soft_labels and not FORMS[task.form].has_classes:
        raise ValueError(
            f"soft_labels: task {task.name!r} has neither labels nor choices (form {task.form!r}); set soft_labels: "
            "false"
        )
    if settings.own_answers.samples and task.match == "judge":
        raise ValueError(
            f"own_answers: answers are graded by rule, and task {task.name!r} has match 'judge'; set "
            "own_answers.samples: 0"
        )
    if settings.own_answers.join and not (task.rationale and task.rationale_as != "second_task"):
        raise ValueError(
            f"own_answers.join: task {task.name!r} has answers without a rationale, and a right one is the row's own; "
            "set own_answers.join: 0"
        )
    rationale_before = task.rationale and task.rationale_as != "second_task"
    if settings.row_weights == "dimp" and rationale_before:
        raise ValueError(
            f"row_weights: 'dimp' weighs answers, and task {task.name!r} writes a rationale before them; set "
            "row_weights: imp, or task.rationale_as: second_task"
        )
    if settings.soft_labels and rationale_before:
        raise ValueError(
            f"soft_labels: task {task.name!r} writes a rationale before the answer, which leads to one label; set "
            "soft_labels: false, or task.rationale_as: second_task"
        )


def rate_hint(settings: FineTuneSettings, student: str) -> str:
    """What to set where a learning rate is too low to teach; empty where it is not.

    An adapter at the rate for all weights, or random weights at the rate for pretrained ones, hardly change.
    """
    usual = USUAL_RATES[SCRATCH if student == SCRATCH else settings.method]
    if settings.learning_rate >= usual / 4:
        return ""
    what = "random weights hardly learn" if student == SCRATCH else f"method {settings.method!r} hardly learns"
    written = f"{usual:.1e}".replace("e-0", "e-")
    return f"{what} with train.learning_rate {settings.learning_rate:g}; set train.learning_rate: {written}"
