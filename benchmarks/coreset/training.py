"""Training on images in the coreset benchmark: the same number of steps for coresets of every size.

SGD with momentum and a one-cycle learning rate. The whole data set is kept on the device, where
images are flipped and shifted. Two models: a network of three convolutions for CPUs, and ResNet-18
(in the form for CIFAR, without the first stride) for GPUs. Images are in channels_last, and in
bfloat16 on GPUs and on CPUs that support it. Heads on vectors: `heads.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.coreset.data import Dataset
from benchmarks.coreset.heads import HeadTrainer
from benchmarks.coreset.recipe import Recipe
from d2prune.scores import TrainingLog

_EVALUATION_BATCH = 1000


class SmallNet(nn.Module):
    """Three convolutions, for CPUs."""

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
        """Return (logits, features)."""
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
        """Return (logits, features)."""
        h = self.body(x)
        return self.fc(h), h


def make_trainer(data: Dataset, recipe: Recipe) -> Trainer | HeadTrainer:
    """Return the trainer of a recipe: of heads for vectors, of networks for images."""
    return HeadTrainer(data, recipe) if recipe.model == "mlp" else Trainer(data, recipe)


class Trainer:
    """Trains models on coresets of a data set, and evaluates them."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self._train, self._test = self._load_inputs(data.train), self._load_inputs(data.test)
        self._labels = torch.from_numpy(data.train_labels).to(recipe.device)

    def fit(self, indices: NDArray[np.int64], seed: int, log: TrainingLog | None = None) -> nn.Module:
        """Train a new model on the samples `indices`.

        Args:
            indices: int64 [M]; shuffled epoch by epoch.
            seed: of initialisation, order and augmentation.
            log: receives the logits of all samples at the end of each epoch of the recipe.
        """
        recipe = self.recipe
        torch.manual_seed(seed)
        model = self._make_model()
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
            with self._autocast():
                logits, _ = model(self._augment(self._train[batch]))
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
        """Return the inputs of the model's last layer for every training sample, float32 [N, D]."""
        return np.asarray(self._outputs(model, self._train)[1].numpy(), np.float32)

    def evaluate(self, model: nn.Module) -> float:
        """Return the accuracy on the test set."""
        predicted = self._outputs(model, self._test)[0].argmax(dim=1).numpy()
        return float((predicted == self.data.test_labels).mean())

    def _make_model(self) -> nn.Module:
        n_classes = self.data.n_classes
        net: nn.Module = SmallNet(n_classes) if self.recipe.model == "small" else ResNet18(n_classes)
        layout = {"device": self.recipe.device, "memory_format": torch.channels_last}
        on_device: nn.Module = net.to(**layout)  # type: ignore[call-overload]
        return on_device

    def _autocast(self) -> Any:
        device = self.recipe.device
        fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
        return torch.autocast(device, torch.bfloat16, enabled=fast)

    def _load_inputs(self, inputs: NDArray[Any]) -> torch.Tensor:
        """Move images to the device as normalised channels_last tensors."""
        tensor = torch.from_numpy(inputs)
        # By the mean and deviation of the training set.
        mean, deviation = self.data.train.mean((0, 1, 2)), self.data.train.std((0, 1, 2))
        pixels = (tensor.float() - torch.from_numpy(mean).float()) / torch.from_numpy(deviation).float()
        return pixels.permute(0, 3, 1, 2).to(self.recipe.device).contiguous(memory_format=torch.channels_last)

    def _augment(self, x: torch.Tensor) -> torch.Tensor:
        """Flip each image at random and shift it by up to an eighth of its size, on the device."""
        n, _, size, _ = x.shape
        reach = size // 8
        padded = functional.pad(x, (reach, reach, reach, reach))
        offset = torch.randint(0, 2 * reach + 1, (2, n, 1), device=x.device)
        pixel = torch.arange(size, device=x.device)
        columns = torch.where(torch.rand(n, 1, device=x.device) < 0.5, pixel, size - 1 - pixel) + offset[1]
        rows = pixel + offset[0]
        index = torch.arange(n, device=x.device)
        moved = padded.permute(0, 2, 3, 1)[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)

    @torch.no_grad()
    def _outputs(self, model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model.eval()
        with self._autocast():
            parts = [model(block) for block in inputs.split(_EVALUATION_BATCH)]
        logits, features = (torch.cat([part[side].float() for part in parts]).cpu() for side in (0, 1))
        return logits, features
