"""What a step works with besides the model: data, the teacher, training, measuring, and where the tokenizer lies.

In: what the runner (:mod:`compression.compress`) and the exporter put in. Out: the one object every step is given.
Imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from compression.distillation.kept_states import KeptStates
from compression.distillation.objective import DistilOptions, make_objective
from compression.distillation.token_objective import make_token_objective
from compression.factors.rank_limits import Gain
from compression.models.forward import predicts_next
from compression.objectives.measure import measure
from compression.objectives.objective import Objective, SpecialTokens, make_task_objective
from compression.objectives.precision import Precision
from compression.pruning.masks import KeepZeros
from compression.samples import Samples, SampleSets
from compression.training.loop import Hook, Logbook, Task, Training, derive_seed, run_training
from runtimes.atomic import write_text
from runtimes.errors import DataError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a step may use. All randomness comes from ``seed`` and ``step``.

    Attributes:
        seed: The recipe's.
        step: The place of this step in the recipe, from 0.
        train_samples: To learn from; labels where the user gave some.
        held_out: To measure on.
        unlabelled: Further samples, without labels.
        tokens: The ids that are no words.
        files: The folder with ``tokenizer.json`` and the like of the checkpoint that this step makes; a step that
            changes the vocabulary writes them anew there, and then goes on with :meth:`read_again`.
        load_teacher: Loads it.
        read_samples: Tokenises the user's data with the tokenizer of a folder.
        logbook: Where trainings keep their state and their metrics.
        factor_gain: Times a linear against two factors; None where nothing can be timed.
        precision: What trainings compute their products in.
    """

    seed: int = 0
    step: int = 0
    train_samples: Samples | None = None
    held_out: Samples | None = None
    unlabelled: Samples | None = None
    tokens: SpecialTokens = field(default_factory=SpecialTokens)
    files: Path | None = None
    load_teacher: Callable[[], nn.Module] | None = None
    read_samples: Callable[[Path], tuple[SampleSets, SpecialTokens]] | None = None
    logbook: Logbook = field(default_factory=Logbook)
    factor_gain: Gain | None = None
    precision: Precision = "fp32"

    def train(
        self,
        model: nn.Module,
        training: Training,
        *,
        name: str = "train",
        hooks: Sequence[Hook] = (),
        extra: Mapping[str, nn.Module] | None = None,
        samples: Samples | None = None,
        objective: Objective | None = None,
        keep_zeros: bool = True,
    ) -> None:
        """Train ``model`` in place; after a kill, from where that training stopped.

        Args:
            model: What learns; left in evaluation mode.
            training: How.
            name: Different for each training of one step.
            hooks: What else happens at every update.
            extra: Modules that learn beside the model.
            samples: What to learn from; ``train_samples``, or ``unlabelled`` where there are none.
            objective: What to make small; the task's loss, or with ``training.distil`` the teacher's.
            keep_zeros: Whether the exact zeros of pruned linears stay zero.

        Raises:
            DataError: there is nothing to learn from, or it has no labels and needs them.
            UsageError: there is no teacher, and one is asked for.
            BudgetMissed: the loss is NaN or infinite.
        """
        chosen = samples or self.require_samples()
        task = Task(
            name=name,
            seed=derive_seed(self.seed, self.step, name),
            samples=chosen,
            objective=objective or self.make_objective(model, training, chosen),
            hooks=(*hooks, KeepZeros(model)) if keep_zeros else tuple(hooks),
            extra=extra or {},
            evaluate=self.evaluate if self.held_out is not None else None,
            precision=self.precision,
        )
        run_training(model, training, task, self.logbook)

    def make_objective(self, model: nn.Module, training: Training, samples: Samples | None = None) -> Objective:
        """Return what :meth:`train` makes small where nothing else is given: for a step that adds to it.

        Raises:
            DataError: there are no samples, or they have no labels and it needs them.
            UsageError: there is no teacher, and one is asked for.
        """
        chosen = samples or self.require_samples()
        if training.distil is None:
            return make_task_objective(model, chosen, self.tokens)
        seed = derive_seed(self.seed, self.step, "distil")
        if predicts_next(model):
            return self._make_token_objective(model, training.epochs, training.distil, chosen, seed)
        return make_objective(model, self.teacher(), training.distil, chosen, self.tokens, seed)

    def _make_token_objective(
        self, model: nn.Module, epochs: int, options: DistilOptions, samples: Samples, seed: int
    ) -> Objective:
        teacher: Any = self.teacher()
        kept = None
        # Where hidden states are matched the teacher's layers are needed every time: there is nothing to keep.
        if epochs > 1 and options.soft_weight and not options.hidden_weight and predicts_next(teacher):
            kept = KeptStates(samples, int(teacher.get_output_embeddings().in_features), self.logbook.folder)
        return make_token_objective(model, teacher, options, samples, seed, kept)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure ``model`` on the held-out samples, or on those it learns from where there are none.

        Returns:
            ``loss`` (mean over samples), and ``accuracy`` for classes, ``correlation`` for scores or ``perplexity``.

        Raises:
            DataError: there are no samples, or they have no labels and the model predicts no tokens.
        """
        return measure(model, self.held_out or self.require_samples(), self.tokens)

    def teacher(self) -> nn.Module:
        """Return the teacher in evaluation mode; its parameters do not learn.

        Raises:
            UsageError: there is none.
        """
        if self.load_teacher is None:
            raise UsageError("there is no teacher to learn from", where="--teacher", cure="name one with --teacher DIR")
        return self.load_teacher()

    def require_samples(self) -> Samples:
        """Return the samples to learn from, or else those without labels: for what needs texts only.

        Raises:
            DataError: there are none.
        """
        found = self.train_samples or self.unlabelled
        if found is None:
            raise DataError("this step needs data", where=self._place(), cure="pass --data FILE or --unlabelled FILE")
        return found

    def require_labels(self) -> Samples:
        """Return the samples to learn from, which have labels.

        Raises:
            DataError: there are none, or they have none.
        """
        if self.train_samples is None:
            raise DataError("this step needs labelled data", where=self._place(), cure="pass --data FILE")
        if self.train_samples.labels is None:
            raise DataError(
                "the data has no labels", where=self._place(), cure="name their column with --label-column NAME"
            )
        return self.train_samples

    def require_unlabelled(self) -> Samples:
        """Return the samples without labels, or else those to learn from: for what looks at texts only.

        Raises:
            DataError: there are none.
        """
        return self.unlabelled or self.require_samples()

    def make_generator(self, purpose: str) -> torch.Generator:
        """Return a generator of random numbers for one purpose within this step."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, purpose))

    def remember(self, name: str, decide: Callable[[], T]) -> T:
        """Return what ``decide`` gives, plain JSON data, and after a kill what it gave then: for what is timed.

        Raises:
            OutputError: no room.
        """
        if self.logbook.folder is None:
            return decide()
        path = self.logbook.folder / f"{name}.json"
        if not path.is_file():
            write_text(path, json.dumps(decide()))
        remembered: T = json.loads(path.read_text(encoding="utf-8"))
        return remembered

    def read_again(self) -> Context:
        """Return this context with its samples tokenised anew by the tokenizer that now lies in ``files``."""
        if self.files is None or self.read_samples is None:
            return self
        sets, tokens = self.read_samples(self.files)
        return replace(
            self, train_samples=sets.train, held_out=sets.held_out, unlabelled=sets.unlabelled, tokens=tokens
        )

    def _place(self) -> str:
        return f"steps[{self.step}]"
