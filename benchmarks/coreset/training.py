"""Training of the coreset benchmark: a model on some of the samples, the same number of steps for however many.

SGD with momentum and a one-cycle rate. The data lies on the device as a whole; images are flipped
and shifted there. Three models: an MLP for vectors, a network of three convolutions for CPUs,
ResNet-18 (the CIFAR form: no first stride) for GPUs. On a GPU in channels_last and bfloat16; on a
CPU in bfloat16 where the CPU has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.coreset.data import Dataset
from d2prune.scores import TrainingLog

_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Recipe:
    """How every model of a benchmark is trained.

    Attributes:
        model: mlp, small or resnet18.
        steps: optimiser steps, the same for every coreset.
        batch_size: samples per step; a smaller coreset is drawn from with repeats.
        lr: peak of the one-cycle rate.
        epochs: how often the model that makes the scores is asked about all samples, at even distances.
        device: cpu or cuda.
    """

    model: str
    steps: int
    batch_size: int
    lr: float
    epochs: int
    device: str


class SmallNet(nn.Module):
    """Three convolutions, for a CPU."""

    def __init__(self, n_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, channels in enumerate((width, 2 * width, 4 * width)):
            before = 3 if i == 0 else channels // 2
            layers += [nn.Conv2d(before, channels, 3, stride=1 if i == 0 else 2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4 * width, n_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits, features)."""
        h = self.body(x)
        return self.fc(h), h


class Mlp(nn.Module):
    """One hidden layer, for vectors."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.2))
        self.fc = nn.Linear(128, n_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits, features)."""
        h = self.body(x)
        return self.fc(h), h


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a 3x3 first convolution and no first pooling."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        from d2prune.embed.model.sources import import_open_clip

        import_open_clip()  # lets torchvision be imported beside a torch without CUDA
        from torchvision.models import resnet18

        net = resnet18(num_classes=n_classes)
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        self.fc, net.fc = net.fc, nn.Identity()
        self.body = net

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits, features)."""
        h = self.body(x)
        return self.fc(h), h


class Trainer:
    """A data set on its device, and models trained on parts of it."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self._images = data.train.ndim == 4
        self._train, self._test = self._placed(data.train), self._placed(data.test)
        self._labels = torch.from_numpy(data.train_labels).to(recipe.device)

    def fit(self, indices: NDArray[np.int64], seed: int, log: TrainingLog | None = None) -> nn.Module:
        """Train on the samples `indices` with batches drawn epoch by epoch; `log` is told of all samples."""
        recipe = self.recipe
        torch.manual_seed(seed)
        model = self._model()
        optimiser = torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.lr, total_steps=recipe.steps, pct_start=0.2, cycle_momentum=False
        )
        chosen = torch.from_numpy(indices).to(recipe.device)
        waiting = chosen[:0]
        every = max(1, recipe.steps // recipe.epochs)
        for step in range(recipe.steps):
            while len(waiting) < recipe.batch_size:
                waiting = torch.cat([waiting, chosen[torch.randperm(len(chosen)).to(recipe.device)]])
            batch, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
            model.train()
            with self._precision():
                logits, _ = model(self._augmented(self._train[batch]))
            loss = functional.cross_entropy(logits.float(), self._labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if log is not None and (step + 1) % every == 0 and log.n_epochs < recipe.epochs:
                log.record(np.arange(len(self._train)), self._outputs(model, self._train)[0], self._labels)
                log.end_epoch()
        return model

    def features(self, model: nn.Module) -> NDArray[np.float32]:
        """What the model's last layer sees of every training sample, float32 [N, D]."""
        return np.asarray(self._outputs(model, self._train)[1].numpy(), np.float32)

    def evaluate(self, model: nn.Module) -> float:
        """Accuracy on the test set."""
        predicted = self._outputs(model, self._test)[0].argmax(dim=1).numpy()
        return float((predicted == self.data.test_labels).mean())

    def _model(self) -> nn.Module:
        name, n_classes = self.recipe.model, self.data.n_classes
        if name == "mlp":
            return Mlp(self.data.train.shape[1], n_classes).to(self.recipe.device)
        net: nn.Module = SmallNet(n_classes) if name == "small" else ResNet18(n_classes)
        return net.to(device=self.recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _precision(self) -> Any:
        device = self.recipe.device
        fast = self._images and (device != "cpu" or torch.cpu._is_avx512_bf16_supported())
        return torch.autocast(device, torch.bfloat16, enabled=fast)

    def _placed(self, inputs: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(inputs)
        if not self._images:
            return tensor.to(self.recipe.device)
        # Normalised by the training set's own mean and deviation.
        mean, deviation = self.data.train.mean((0, 1, 2)), self.data.train.std((0, 1, 2))
        pixels = (tensor.float() - torch.from_numpy(mean).float()) / torch.from_numpy(deviation).float()
        return pixels.permute(0, 3, 1, 2).to(self.recipe.device).contiguous(memory_format=torch.channels_last)

    def _augmented(self, x: torch.Tensor) -> torch.Tensor:
        """Flip and shift by up to an eighth, each image on its own, on the device."""
        if not self._images:
            return x
        n, _, size, _ = x.shape
        reach = size // 8
        padded = functional.pad(x, (reach, reach, reach, reach))
        offset = torch.randint(0, 2 * reach + 1, (2, n, 1), device=x.device)
        place = torch.arange(size, device=x.device)
        columns = torch.where(torch.rand(n, 1, device=x.device) < 0.5, place, size - 1 - place) + offset[1]
        rows = place + offset[0]
        index = torch.arange(n, device=x.device)
        moved = padded.permute(0, 2, 3, 1)[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)

    @torch.no_grad()
    def _outputs(self, model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model.eval()
        with self._precision():
            parts = [model(block) for block in inputs.split(_EVALUATION_BATCH)]
        logits, features = (torch.cat([part[side].float() for part in parts]).cpu() for side in (0, 1))
        return logits, features
