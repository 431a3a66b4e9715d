"""From the settings of a few-shot experiment to its learner: each method is a composition of the library's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import nn

import fewstep
from fewstep import baselines
from fewstep.models import ContextChannel, ContextConv4, Conv4, FullyConnected, ResNet12, norm_layer
from fewstep.tasks.episodes import LabelledExamples

if TYPE_CHECKING:
    from fewstep.experiments.few_shot import FewShot

GradientMethod = Literal[
    "maml", "fomaml", "anil", "boil", "meta-sgd", "maml++", "reptile", "imaml", "cavia", "context", "meta-lstm"
]
EpisodicMethod = Literal["protonet", "matching", "matching-context", "relation", "siamese", "mann"]
ClassifierMethod = Literal["fine-tuning", "baseline++", "nearest-neighbour"]
Method = Literal[GradientMethod, EpisodicMethod, ClassifierMethod]
Network = Literal["paper", "flat", "no-conv", "maml++", "resnet12"]
AnyNetwork = Conv4 | FullyConnected | ResNet12


def network(config: FewShot, image_size: int, channels: int) -> AnyNetwork:
    """The experiment's network for its images."""
    ways, filters, norm, steps = config.ways, config.filters, config.norm, config.steps
    grey = channels == 1
    channels += config.method == "context"
    match config.network:
        case "paper" if grey:
            return Conv4.omniglot(ways, filters, norm, steps, channels)
        case "paper":
            return Conv4.mini_imagenet(ways, filters, norm, steps, image_size, channels)
        case "flat":
            pool = image_size > 28
            return Conv4(channels, ways, filters, image_size, pool=pool, norm=norm_layer(norm, steps=steps))
        case "no-conv":
            return FullyConnected.maml(ways, channels * image_size**2, norm, steps)
        case "maml++":
            return Conv4.maml_plus_plus(ways, channels, image_size, filters, norm, steps)
        case "resnet12":
            return ResNet12(channels, ways, image_size=image_size, norm=norm_layer(norm, steps=steps))
    raise ValueError(f"There is no network {config.network!r}; there are {list(get_args(Network))}.")


def make_learner(config: FewShot, model: AnyNetwork, compile: bool | str, classes: LabelledExamples) -> Any:
    """A fresh learner of the experiment's method; ``classes`` are what an ordinary classifier is trained on."""
    if config.method in get_args(ClassifierMethod):
        return _classifier(config, model, len(classes.classes))
    if config.method in get_args(EpisodicMethod):
        return _episodic(config, model)
    return _by_gradient(config, model, compile)


def _by_gradient(config: FewShot, model: AnyNetwork, compile: bool | str) -> fewstep.MetaLearner[Any]:
    loss, lr, steps = fewstep.cross_entropy, config.inner_lr, config.steps
    options: dict[str, Any] = {"compile": compile}
    if config.adapts_norms or not any(".norm." in name for name, _ in model.named_parameters()):
        moved: dict[str, Any] = {**options, "adapts": "*"}
    else:
        moved = {**options, "adapts": ["*", "!*.norm.*"]}
    match config.method:
        case "maml":
            return fewstep.maml(model, loss, lr, steps, **moved)
        case "fomaml":
            return fewstep.fomaml(model, loss, lr, steps, **moved)
        case "anil":
            return fewstep.anil(model, loss, lr, steps, head="head.*", **options)
        case "boil":
            return fewstep.boil(model, loss, lr, steps, head="head.*", **options)
        case "meta-sgd":
            return fewstep.meta_sgd(model, loss, lr, steps, **moved)
        case "maml++":
            if not config.learned_rates:
                moved["rule"] = fewstep.GradientDescent(lr)
            return fewstep.maml_plus_plus(
                model,
                loss,
                lr,
                steps,
                iterations_per_epoch=max(1, config.iterations // 100),
                multi_step_epochs=(15 if config.data == "mini-imagenet" else 10) if config.multi_step else 0,
                first_order_epochs=50 if config.order_annealing else 0,
                **moved,
            )
        case "reptile":
            rule = fewstep.CarriedAdam(model.named_parameters(), config.inner_lr, betas=(0.0, 0.999))
            return fewstep.reptile(model, loss, rule, steps, inner_batch=config.inner_batch, **moved)
        case "imaml":
            moved.update(regularization=config.regularization, damping=config.damping)
            return fewstep.imaml(model, loss, lr, steps, **moved)
        case "cavia":
            return fewstep.cavia(ContextConv4(_conv4(config, model), config.filters), loss, lr, steps, **options)
        case "context":
            with_context = ContextChannel(model, _conv4(config, model).image_size)
            return fewstep.maml(with_context, loss, lr, steps, adapts="context", **options)
        case "meta-lstm":
            # one by one 1.6 times as fast as under vmap: what its LSTM keeps for the way back leaves a CPU's caches
            return fewstep.meta_lstm(model, loss, steps, vectorize="auto" if compile else False, **moved)
    raise ValueError(f"There is no method {config.method!r}.")


def _episodic(config: FewShot, model: AnyNetwork) -> nn.Module:
    encoder, ways, features = model.encoder(), config.ways, model.features
    match config.method:
        case "protonet":
            return baselines.PrototypicalNetwork(encoder, ways)
        case "matching":
            return baselines.MatchingNetwork(encoder, ways)
        case "matching-context":
            return baselines.MatchingNetwork(encoder, ways, baselines.FullContext(features))
        case "relation":
            conv4 = _conv4(config, model)
            maps, size = conv4.body[:2], -(-conv4.image_size // 4)
            return baselines.RelationNetwork(maps, baselines.RelationModule(config.filters, size), ways)
        case "siamese":
            return baselines.SiameseNetwork(nn.Sequential(encoder, nn.Sigmoid()), features, ways)
        case "mann":
            return baselines.MANN(encoder, features, ways)
    raise ValueError(f"There is no method {config.method!r}.")


def _conv4(config: FewShot, model: AnyNetwork) -> Conv4:
    if not isinstance(model, Conv4):
        raise ValueError(
            f"The method {config.method!r} is made for a network of four convolutions; got the network "
            f"{config.network!r}. Take 'paper', 'flat' or 'maml++'."
        )
    return model


def _classifier(config: FewShot, model: AnyNetwork, classes: int) -> nn.Module:
    encoder, ways, features = model.encoder(), config.ways, model.features
    rule = fewstep.GradientDescent(config.inner_lr)
    if config.method == "nearest-neighbour":
        few_shot: Any = baselines.NearestNeighbour(encoder, ways)
    else:
        head = baselines.CosineHead(features, ways) if config.method == "baseline++" else nn.Linear(features, ways)
        few_shot = baselines.FineTuned(encoder, head, ways, rule, config.test_steps)
    plus = config.method == "baseline++"
    everything = baselines.CosineHead(features, classes) if plus else nn.Linear(features, classes)
    return baselines.PretrainedClassifier(few_shot, everything, classes)
