"""One optimiser step of a two-tower model: towers, contrastive loss, gradients over all processes, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from filters.image_text.pixels import Pixels
from recipes.clip.batch_norm import has_batch_norm, over_all_processes
from recipes.clip.loss import local_loss
from recipes.clip.model import clamp_logit_scale, parameter_groups
from recipes.clip.settings import Settings
from recipes.training.run_folder import TrainingError
from recipes.training.world import World


class Towers(nn.Module):
    """Both encoders as one module's forward, which is where DDP comes in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32 [n, 3, s, s], int64 [n, context] -> two times [n, d] of length 1, scale of the cosines."""
        return (
            self.module.encode_image(images, normalize=True),  # type: ignore[operator]
            self.module.encode_text(texts, normalize=True),  # type: ignore[operator]
            self.module.logit_scale.exp(),  # type: ignore[operator, union-attr]
        )


@dataclass(frozen=True)
class Done:
    """What a step came to, the same in every process."""

    loss: float
    grad_norm: float | None
    """Before clipping; none without."""
    late: bool
    """The main process said so."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and (self.grad_norm is None or math.isfinite(self.grad_norm))


class Engine:
    """A model in training, seen from one process.

    Micro-batches keep the contrastive maths of the whole batch (arXiv 2101.06983): features of all of them
    are computed first without keeping activations, the loss gives the gradient of each feature, and a second
    pass takes these back through the towers. The gradient is exact; the towers' forward runs twice.
    """

    def __init__(
        self,
        module: nn.Module,
        pixels: Pixels,
        settings: Settings,
        world: World,
        seed: int,
        *,
        precision: str = "fp32",
        micro_batch: int | None = None,
        compile: bool = False,
    ) -> None:
        self.pixels, self.settings, self.world, self.seed = pixels, settings, world, seed
        self.precision, self.micro = precision, micro_batch
        if micro_batch is not None:
            _refuse_micro_batches(module, micro_batch)
        self.module = module.to(world.device).train()
        self.random = any(_draws(layer) for layer in module.modules())
        if world.size > 1:
            over_all_processes(module)
        self.towers = Towers(module)
        if compile:
            self.towers.compile()
        self.parallel: nn.Module = _replicas(self.towers, world) if world.size > 1 else self.towers
        self.optimizer = torch.optim.AdamW(
            parameter_groups(module, settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )

    def step(self, step: int, pixels: Tensor, tokens: Tensor, lr: float, late: bool = False) -> Done:
        """This process's pairs of the batch of step 0, 1, …: uint8 [n, s, s, 3], int64 [n, context].

        Without an update where loss or gradient norm is not finite: it would ruin the weights.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        if self.random:  # dropout draws by (seed, step, process), so a resumed run draws the same
            torch.manual_seed(((self.seed * 1_000_003 + step) * 65_537 + self.world.rank) % (1 << 63))
        try:
            loss = self._gradients(pixels, tokens)
            done = self._agree(loss, self._clip(), late)
        except torch.cuda.OutOfMemoryError as error:
            at_once = self.micro or len(pixels)
            raise TrainingError(
                f"out of GPU memory with {at_once} pairs at a time; give a smaller micro-batch "
                f"({max(1, at_once // 2)}, say) or checkpoint activations: {str(error).splitlines()[0]}"
            ) from error
        if done.finite:
            self.optimizer.step()
            clamp_logit_scale(self.module, self.settings.max_logit_scale)
        return done

    def _gradients(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Fill the gradients; this process's loss."""
        if self.micro is None or self.micro >= len(pixels):
            images, texts = self._on_device(pixels, tokens)
            with self._autocast():
                loss = local_loss(*self.parallel(images, texts), self.world)
            loss.backward()
            return loss.detach()
        return self._in_two_passes(list(zip(pixels.split(self.micro), tokens.split(self.micro), strict=True)))

    def _in_two_passes(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        features: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for part in parts:
                images, texts = self._on_device(*part)
                with self._autocast():  # one a part: its cache of cast weights would drop their gradients
                    features.append(self.towers(images, texts))
        image, text = (torch.cat([f[i] for f in features]).requires_grad_() for i in (0, 1))
        scale = features[0][2].detach().requires_grad_()
        with self._autocast():
            loss = local_loss(image, text, scale, self.world)
        loss.backward()
        sizes = [len(part) for part, _ in parts]
        last = len(parts) - 1
        wanted = zip(image.grad.split(sizes), text.grad.split(sizes), strict=True)  # type: ignore[union-attr]
        for i, (part, gradients) in enumerate(zip(parts, wanted, strict=True)):
            images, texts = self._on_device(*part)
            with nullcontext() if i == last else self._not_exchanged():
                with self._autocast():
                    made = self.parallel(images, texts)
                of_scale = scale.grad if i == last else torch.zeros_like(scale)
                torch.autograd.backward(made, [*gradients, of_scale])
        return loss.detach()

    def _not_exchanged(self) -> AbstractContextManager[Any]:
        """Within it, gradients are added up in this process only."""
        return self.parallel.no_sync() if self.world.size > 1 else nullcontext()  # type: ignore[operator]

    def _clip(self) -> Tensor | None:
        if self.settings.grad_clip is None:
            return None
        return torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.grad_clip)

    def _agree(self, loss: Tensor, norm: Tensor | None, late: bool) -> Done:
        """Loss of the whole batch; one exchange, one wait for the device."""
        if self.world.size > 1:
            said = loss.new_tensor(float(late and self.world.main), dtype=torch.float32)
            loss, said = self.world.sum(torch.stack((loss.float() / self.world.size, said)))
            late = said.item() > 0
        return Done(loss.item(), None if norm is None else norm.item(), late)

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.world.device.type
        return torch.autocast(device, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def _on_device(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        device = self.world.device
        images = self.pixels.normalise(pixels.to(device, non_blocking=True))
        return images, tokens.to(device, non_blocking=True)

    def weights_are_finite(self) -> bool:
        """Whether the weights may be kept."""
        with torch.no_grad():
            return all(bool(p.isfinite().all()) for p in self.module.parameters())

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must hold, by name. Before the first step, of the model alone."""
        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self._trained():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the optimiser's part of :meth:`state`; the model's tensors are filled by the caller."""
        for name, parameter in self._trained():
            self.optimizer.state[parameter] = {
                key: tensors[f"optimizer.{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.module.named_parameters() if p.requires_grad)


def _replicas(towers: Towers, world: World) -> nn.Module:
    import inspect

    from torch.nn.parallel import DistributedDataParallel

    # Buffers are the same in every process (masks, averages over all); newer torch renamed the option.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    unsent = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    ids = [world.device.index] if world.gpu else None
    return DistributedDataParallel(towers, device_ids=ids, **{unsent: False})


def _refuse_micro_batches(module: nn.Module, micro_batch: int) -> None:
    """Where they would change the maths."""
    if micro_batch < 1:
        raise TrainingError(f"micro-batch is {micro_batch}; give 1 pair or more")
    if has_batch_norm(module):
        raise TrainingError(
            "this model has batch normalisation, whose statistics are those of what passes at a time: "
            "micro-batches would train another model. Leave them out, or use more processes"
        )
    layer = next((layer for layer in module.modules() if _draws(layer)), None)
    if layer is not None:
        raise TrainingError(
            f"this model draws at random in the forward pass ({type(layer).__name__}), and micro-batches "
            "pass twice. Leave them out, or use more processes"
        )


def _draws(layer: nn.Module) -> bool:
    """Whether a layer's output is random in training."""
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p > 0
    if isinstance(layer, nn.MultiheadAttention):
        return layer.dropout > 0
    # timm's stochastic depth, open_clip's patch dropout
    return getattr(layer, "drop_prob", None) not in (None, 0, 0.0) or (
        type(layer).__name__ == "PatchDropout" and getattr(layer, "prob", 0) > 0
    )
