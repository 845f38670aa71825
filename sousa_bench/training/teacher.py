"""A trained model that answers what a student hears: the same augmented clips, through the teacher's own front end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, logsigmoid

from sousa_bench.data.datamodule import FeatureMemory
from sousa_bench.training.clip_features import ClipFeatures
from sousa_bench.training.frozen_part import groups
from sousa_bench.training.inputs import Inputs
from sousa_bench.training.kept_states import KeptStates

if TYPE_CHECKING:
    from sousa_bench.data.augmentation import Augmentation
    from sousa_bench.data.datamodule import Batch, Clips
    from sousa_bench.models.base import AudioModel, State


class Teacher:
    """A frozen model, and how much its answers weigh.

    Answers to clips that no augmentation changes are computed once for all runs, in groups that are always the same.

    Args:
        model: In evaluation mode.
        clips: The training split at the teacher's sample rate.
        augmentation: The student's.
        weight: Share of the loss.
        temperature: Divides the logits of both.
    """

    def __init__(
        self, model: AudioModel, clips: Clips, augmentation: Augmentation, weight: float, temperature: float
    ) -> None:
        self.weight = weight
        self.temperature = temperature
        self._model = model.eval().requires_grad_(False)
        self._clips = clips
        self._features = ClipFeatures(self._model, {clips.split: clips}, augmentation, FeatureMemory(0))
        self._unchanging = augmentation.name == "off" and not clips.cut
        self._answers: Tensor | None = None
        what = f"the answers of {model.name} ({model.variant}), the teacher,"
        self._kept = KeptStates(model, what, lambda *features: (model.backbone(*features),), lambda: [])

    @torch.no_grad()
    def fill(self, device: torch.device) -> None:
        """Compute the answers to a whole training split beforehand, where every epoch's are the same."""
        if not self._unchanging:
            return
        self._model.to(device)
        numbers = groups(self._clips.padded)
        size = 4 * len(self._clips) * len(self._clips.task.classes)
        found = self._kept.of(self._clips, numbers, lambda members: (self._answer(members),), size)
        for group in np.unique([numbers[i] for i in range(len(numbers)) if i not in found]):  # no room on the disk
            members = np.flatnonzero(numbers == group)
            found |= {int(i): (row[None],) for i, row in zip(members, self._answer(members), strict=True)}
        rows = [row for i in range(len(numbers)) if (row := found[i][0]) is not None]
        self._answers = torch.cat(rows).float()

    @torch.no_grad()
    def logits(self, batch: Batch, seed: int, student: ClipFeatures, most: int) -> Tensor:
        """(clips, classes) float32 answers to a training batch.

        Args:
            batch: The batch.
            seed: The run's.
            student: What the student's front end makes of the clips.
            most: Clips of one forward pass.
        """
        if self._answers is not None:
            return self._answers[batch.index]
        self._model.to(student.device)
        same_rate = self._clips.sample_rate == student.clips[batch.split].sample_rate
        heard = self._features.augmented(batch, seed, None if same_rate else student.augmented(batch, seed))
        inputs = Inputs(self._features.training_features(batch, seed, heard), self._network)
        parts = [inputs.logits(slice(start, start + most)) for start in range(0, len(inputs), most)]
        return torch.cat(parts).float()

    def losses(self, student: Tensor, teacher: Tensor, several: bool) -> Tensor:
        """(clips,) Kullback-Leibler divergence of the student's answers from the teacher's, both softened, in nats.

        Times the temperature's square, by which softening makes gradients smaller (Hinton et al. 2015,
        arXiv:1503.02531). With several labels a clip the mean over the classes' two-way answers.

        Args:
            student: (clips, classes) float32 logits.
            teacher: (clips, classes) float32 logits.
            several: Whether a clip has any number of labels.
        """
        student, teacher = student / self.temperature, teacher / self.temperature
        if several:
            held = teacher.sigmoid()
            entropy = -(held * logsigmoid(teacher) + (1 - held) * logsigmoid(-teacher))
            apart = (binary_cross_entropy_with_logits(student, held, reduction="none") - entropy).mean(dim=1)
        else:
            held = log_softmax(teacher, dim=1)
            apart = (held.exp() * (held - log_softmax(student, dim=1))).sum(dim=1)
        return apart * self.temperature**2

    def _network(self, parts: State) -> Tensor:
        answers: Tensor = self._model.backbone(*parts)
        return answers

    def _answer(self, members: np.ndarray) -> Tensor:
        [(_, features)] = self._features.features(self._clips.split, members, remember=False)
        return self._network(features)
