"""Laws of the adapter: it begins as nothing, trains alone, and comes off without a trace."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from brushwork.errors import UserError
from brushwork.lora.inject import Adapter, apply, inject
from brushwork.lora.layers import Dropout, LoRALayer, LoRAWeights
from brushwork.lora.merge import delta, fuse
from brushwork.lora.norms import limit_norms
from brushwork.lora.state import AdapterState, named_layers
from brushwork.lora.targets import find_targets
from brushwork.models.spec import UNetSpec
from brushwork.models.unet import UNet

SDXL_LIKE = UNetSpec(
    channels=(32, 64),
    attention_depth=(0, 1),
    mid_depth=1,
    heads=(1, 2),
    layers_per_block=1,
    context_width=24,
    linear_projection=True,
    pooled_width=8,
    time_id_width=8,
    sample_size=8,
)
SD15_LIKE = UNetSpec(
    channels=(32, 64),
    attention_depth=(1, 0),
    mid_depth=1,
    heads=(2, 2),
    layers_per_block=1,
    context_width=24,
    linear_projection=False,
    pooled_width=None,
    time_id_width=None,
    sample_size=8,
)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TARGETS = ["attention", "attention_out", "all", "kohya", "kohya_conv", ("to_q", "mid_block.*.to_v")]


def small_unet(spec: UNetSpec = SDXL_LIKE, dtype: torch.dtype = torch.float32, device: str = "cpu") -> UNet:
    torch.manual_seed(0)
    return UNet(spec).to(device, dtype).eval().requires_grad_(False)


def small_text_encoder(kind: type[nn.Module] = CLIPTextModel) -> nn.Module:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=10, projection_dim=8, eos_token_id=49, bos_token_id=48, pad_token_id=0,
    )  # fmt: skip
    return kind(config).eval()


def predict(unet: UNet) -> Tensor:
    """The network's answer to fixed inputs: -> (2, 4, 8, 8)"""
    dtype, device = unet.conv_in.weight.dtype, unet.conv_in.weight.device
    draw = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn(2, 4, 8, 8, generator=draw).to(dtype),
        "timesteps": torch.tensor([10, 700]),
        "context": torch.randn(2, 5, 24, generator=draw).to(dtype),
    }
    if unet.spec.family == "sdxl":
        inputs["pooled"] = torch.randn(2, 8, generator=draw).to(dtype)
        inputs["time_ids"] = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    return unet(**{name: tensor.to(device) for name, tensor in inputs.items()})


def trained(adapter: Adapter, deviation: float = 0.05, seed: int = 3) -> AdapterState:
    """As if it had been trained: no weight is zero any more."""
    draw = torch.Generator().manual_seed(seed)
    state = {
        name: LoRAWeights(
            down=torch.randn(weights.down.shape, generator=draw) * deviation,
            up=torch.randn(weights.up.shape, generator=draw) * deviation,
            alpha=weights.alpha,
        )
        for name, weights in adapter.state().items()
    }
    adapter.load(state)
    return state


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("spec", [SD15_LIKE, SDXL_LIKE], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_adapter_changes_nothing_before_training(
    spec: UNetSpec, targets: str, dtype: torch.dtype, device: str
) -> None:
    unet = small_unet(spec, dtype, device)
    before = predict(unet)

    adapter = inject({"unet": unet}, targets=targets, rank=4, alpha=2)

    assert adapter.num_modules > 0
    assert torch.equal(predict(unet), before)


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.2], ids=["plain", "dropout"])
@pytest.mark.parametrize("device", DEVICES)
def test_training_changes_every_module_of_the_adapter_and_no_tensor_of_the_base(
    targets: str, dtype: torch.dtype, dropout: float, device: str
) -> None:
    unet = small_unet(SDXL_LIKE, dtype, device)
    base = dict(unet.named_parameters())
    before = snapshot(unet)
    adapter = inject({"unet": unet}, targets=targets, rank=4, dropout=Dropout(inner=dropout))
    start = adapter.state()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3, weight_decay=0.0)

    for step in range(3):
        adapter.set_dropout_key(step)
        predict(unet).float().square().mean().mul(100).backward()
        optimizer.step()
        optimizer.zero_grad()

    for name, weights in adapter.state().items():
        assert not torch.equal(weights.down, start[name].down), name
        assert not torch.equal(weights.up, start[name].up), name
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in base.values())
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    assert all(parameter.device.type == device for parameter in adapter.parameters())
    adapter.detach()
    assert same_bits(before, snapshot(unet))


@pytest.mark.parametrize("spec", [SD15_LIKE, SDXL_LIKE], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_fused_is_the_same_as_run_beside(spec: UNetSpec, targets: str) -> None:
    beside, fused = small_unet(spec), small_unet(spec)
    untouched = predict(beside)
    adapter = inject({"unet": beside}, targets=targets, rank=4, alpha=2, conv_rank=2)
    state = trained(adapter, 0.3)
    adapter.set_strength(0.7)

    assert fuse({"unet": fused}, state, strength=0.7) == adapter.num_modules

    torch.testing.assert_close(predict(fused), predict(beside), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(predict(fused), untouched, rtol=1e-2, atol=1e-2)


def test_delta_is_what_the_layers_add_to_a_strided_convolution() -> None:
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    root = nn.ModuleDict({"downsamplers": nn.ModuleList([convolution])})
    state = {"unet.downsamplers.0": LoRAWeights(torch.randn(2, 3, 3, 3), torch.randn(5, 2, 1, 1), alpha=3.0)}
    x = torch.randn(2, 3, 8, 8)
    expected = torch.conv2d(x, convolution.weight + delta(state["unet.downsamplers.0"]), convolution.bias, 2, 1)

    apply({"unet": root}, state)

    torch.testing.assert_close(root["downsamplers"][0](x), expected, rtol=1e-5, atol=1e-5)


def test_several_adapters_stack_with_their_strengths() -> None:
    unet, fused = small_unet(), small_unet()
    first = inject({"unet": small_unet()}, targets="kohya", rank=4, seed=1)
    second = inject({"unet": small_unet()}, targets="all", rank=2, seed=2)
    states = trained(first, 0.2), trained(second, 0.2, seed=4)

    apply({"unet": unet}, states[0], strength=0.5)
    apply({"unet": unet}, states[1], strength=1.5)
    fuse({"unet": fused}, states[0], strength=0.5)
    fuse({"unet": fused}, states[1], strength=1.5)

    torch.testing.assert_close(predict(unet), predict(fused), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first on first off", "last on first off"])
def test_detaching_restores_the_identical_objects_in_any_order(order: tuple[int, int]) -> None:
    unet = small_unet()
    modules, before, answer = dict(unet.named_modules()), snapshot(unet), predict(unet)
    states = [trained(inject({"unet": small_unet()}, targets=targets, rank=4)) for targets in ("kohya_conv", "all")]
    adapters = [apply({"unet": unet}, state) for state in states]

    adapters[order[0]].detach()
    alone = small_unet()
    apply({"unet": alone}, states[order[1]])
    assert torch.equal(predict(unet), predict(alone))

    adapters[order[1]].detach()
    adapters[order[1]].detach()  # a second time does no harm
    assert {name: id(module) for name, module in unet.named_modules()} == {
        name: id(old) for name, old in modules.items()
    }
    assert same_bits(before, snapshot(unet))
    assert torch.equal(predict(unet), answer)


def test_strength_zero_is_the_base() -> None:
    unet = small_unet()
    before = predict(unet)
    adapter = inject({"unet": unet}, targets="kohya_conv", rank=4)
    trained(adapter)

    adapter.set_strength(0.0)

    assert torch.equal(predict(unet), before)


def test_the_start_follows_from_the_seed_and_the_name_of_the_layer_alone() -> None:
    few = inject({"unet": small_unet()}, targets="attention", rank=4, seed=5).state()
    many = inject({"unet": small_unet()}, targets="kohya_conv", rank=4, seed=5).state()
    other = inject({"unet": small_unet()}, targets="attention", rank=4, seed=6).state()

    for name, weights in few.items():
        assert torch.equal(weights.down, many[name].down)
        assert not torch.equal(weights.down, other[name].down)
        assert not weights.up.any()
        bound = weights.down.shape[1] ** -0.5
        assert weights.down.abs().max() <= bound
        assert weights.down.abs().max() > 0.9 * bound
        assert abs(weights.down.std().item() - bound / 3**0.5) < 0.15 * bound
    assert len({weights.down.sum().item() for weights in few.values()}) == len(few)


def test_dropout_masks_follow_from_the_key_and_differ_between_layers() -> None:
    unet = small_unet()
    adapter = inject({"unet": unet}, targets="kohya_conv", rank=8, dropout=Dropout(inner=0.5))
    trained(adapter, 0.3)

    plain = predict(unet)
    adapter.set_dropout_key(1)
    first, again = predict(unet), predict(unet)
    adapter.set_dropout_key(2)
    second = predict(unet)
    adapter.set_dropout_key(None)

    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, plain)
    assert torch.equal(predict(unet), plain)
    hidden = torch.ones(64, 8)
    masks = [layer.drop(hidden, 1) for layer in adapter.layers.values()]
    assert all(not torch.equal(mask, masks[0]) for mask in masks[1:])
    assert set(masks[0].unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_rank_dropout_leaves_out_ranks_of_each_picture_as_kohya_does(kind: str) -> None:
    targets = "attention" if kind == "linear" else "mid_block.resnets.0.conv1"
    adapter = inject({"unet": small_unet()}, targets=targets, rank=8, dropout=Dropout(rank=0.25))
    layer = next(iter(adapter.layers.values()))
    width = layer.down.shape[1]
    x = torch.randn(6, 5, width) if kind == "linear" else torch.randn(6, width, 4, 4)
    hidden = layer.inner(x)

    dropped = layer.drop(hidden, 7)

    # kohya-ss/sd-scripts, networks/lora.py: lx * mask of (batch, rank), and the scale divided by 1 - rank_dropout.
    ranks = hidden.movedim(-1 if kind == "linear" else 1, 1).flatten(2)  # (picture, rank, places)
    kept = dropped.movedim(-1 if kind == "linear" else 1, 1).flatten(2) / ranks
    mask = kept[:, :, :1]
    torch.testing.assert_close(kept, mask.expand_as(kept))
    assert {round(value, 4) for value in mask.unique().tolist()} == {0.0, round(1 / 0.75, 4)}
    assert not torch.equal(mask[0], mask[1])


def test_module_dropout_leaves_whole_layers_out_of_a_batch_at_its_rate() -> None:
    unet = small_unet()
    adapter = inject({"unet": unet}, targets="kohya_conv", rank=2, dropout=Dropout(module=0.3))
    trained(adapter)
    layers = list(adapter.layers.values())
    left_out = []
    for key in range(40):
        adapter.set_dropout_key(key)
        left_out += [layer.is_left_out for layer in layers]
    assert abs(sum(left_out) / len(left_out) - 0.3) < 0.05

    gone = next(layer for layer in layers if layer.is_left_out and isinstance(layer.base, nn.Linear))
    stays = next(layer for layer in layers if not layer.is_left_out and isinstance(layer.base, nn.Linear))
    x = torch.randn(2, gone.down.shape[1])
    assert torch.equal(gone(x), gone.base(x))
    x = torch.randn(2, stays.down.shape[1])
    kept = stays(x)
    adapter.set_dropout_key(None)
    assert torch.equal(kept, stays(x))  # nothing is raised for what is left out


def test_a_rank_stabilised_adapter_means_the_same_in_every_program() -> None:
    plain = inject({"unet": small_unet()}, targets="kohya_conv", rank=16, alpha=8, conv_rank=4, conv_alpha=2)
    stable = inject(
        {"unet": small_unet()}, targets="kohya_conv", rank=16, alpha=8, conv_rank=4, conv_alpha=2, rslora=True
    )
    for name, layer in stable.layers.items():
        rank = layer.down.shape[0]
        assert layer.scale == pytest.approx(plain.layers[name].alpha / rank**0.5)
        assert layer.weights().alpha == pytest.approx(layer.scale * rank)  # what a file holds


def test_updates_are_scaled_down_to_the_largest_norm_as_kohya_does() -> None:
    adapter = inject({"unet": small_unet()}, targets="kohya_conv", rank=4, alpha=2)
    with torch.no_grad():
        for number, layer in enumerate(adapter.layers.values()):
            layer.up.normal_(std=0.02 * (number % 7))
    before = adapter.state()

    limit_norms(adapter.layers.values(), largest=0.5)

    sizes = {name: delta(weights).norm() for name, weights in before.items()}
    assert sum(size > 0.5 for size in sizes.values()) > 5
    assert sum(0 < size < 0.5 for size in sizes.values()) > 5
    for name, weights in adapter.state().items():
        # kohya-ss/sd-scripts, apply_max_norm_regularization: both halves by the root of the ratio.
        ratio = min(1.0, 0.5 / max(sizes[name].item(), 1e-30))
        torch.testing.assert_close(weights.down, before[name].down * ratio**0.5, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(weights.up, before[name].up * ratio**0.5, rtol=1e-5, atol=1e-9)
        if ratio == 1.0:
            assert torch.equal(weights.up, before[name].up)


def test_dropout_leaves_the_global_random_state_alone() -> None:
    adapter = inject({"unet": small_unet()}, targets="attention", rank=4, dropout=Dropout(inner=0.5))
    adapter.set_dropout_key(1)
    before = torch.get_rng_state()

    predict(adapter._components["unet"])

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dropout", [Dropout(inner=0.5), Dropout(rank=0.5), Dropout(inner=0.2, rank=0.2)])
def test_a_checkpointed_layer_draws_the_same_dropout_mask_again(dropout: Dropout) -> None:
    unet = small_unet()
    adapter = inject({"unet": unet}, targets="attention", rank=4, dropout=dropout)
    trained(adapter)
    adapter.set_dropout_key(1)
    layer = next(iter(adapter.layers.values()))
    x = torch.randn(2, 3, layer.down.shape[1])

    layer(x).square().sum().backward()
    direct = layer.down.grad
    layer.down.grad = None
    checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False).square().sum().backward()

    assert torch.equal(layer.down.grad, direct)


def test_the_named_sets_are_what_they_say() -> None:
    def names(targets: str, spec: UNetSpec = SDXL_LIKE) -> set[str]:
        return set(find_targets({"unet": small_unet(spec)}, targets, text_encoder=False))

    layers = {name: layer for name, _, layer in named_layers({"unet": small_unet()})}
    attention = {name for name in layers if name.endswith((".to_q", ".to_k", ".to_v"))}
    output = {name for name in layers if name.endswith(".to_out.0")}
    inside = {name for name in layers if ".attentions." in name}
    linear = {name for name, layer in layers.items() if isinstance(layer, nn.Linear)}

    assert names("attention") == attention
    assert names("attention_out") == attention | output
    assert names("all") == linear
    assert "unet.time_embedding.linear_1" in linear
    assert names("kohya") == inside
    assert names("kohya_conv") == set(layers) - {
        "unet.conv_in", "unet.conv_out",
        "unet.time_embedding.linear_1", "unet.time_embedding.linear_2",
        "unet.add_embedding.linear_1", "unet.add_embedding.linear_2",
    }  # fmt: skip
    assert any(name.endswith("proj_in") for name in names("kohya", SD15_LIKE))  # a 1 x 1 convolution there


def test_names_and_patterns_choose_layers() -> None:
    def names(*targets: str) -> set[str]:
        return set(find_targets({"unet": small_unet()}, targets, text_encoder=False))

    everything = {name for name, _, _ in named_layers({"unet": small_unet()})}
    assert names("to_q") == {name for name in everything if name.endswith(".to_q")}
    assert names("mid_block.*") == {name for name in everything if name.startswith("unet.mid_block.")}
    assert names("unet.mid_block.*") == names("mid_block.*") == names("mid_block")
    assert names("attn2.to_*") == {name for name in everything if ".attn2.to_" in name}
    assert names("conv_in", "to_k") == names("conv_in") | names("to_k")


def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="to_queue") as caught:
        find_targets({"unet": small_unet()}, ["to_k", "to_queue"], text_encoder=False)
    assert "to_q" in str(caught.value.fix)
    with pytest.raises(UserError) as caught:
        find_targets({"unet": small_unet()}, "attention_ouut", text_encoder=False)
    assert "'attention_out'" in str(caught.value.fix)


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_text_encoders_have_the_names_of_the_files_whatever_the_library_calls_its_modules(kind: type) -> None:
    components = {"unet": small_unet(), "text_encoder": small_text_encoder(kind)}

    adapter = inject(components, targets="kohya", rank=2, text_encoder=True)

    names = {name for name in adapter.layers if name.startswith("text_encoder.")}
    assert names == {
        f"text_encoder.text_model.encoder.layers.{layer}.{module}"
        for layer in range(2)
        for module in (*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
    }  # fmt: skip
    assert len(adapter.parameters("text_encoder")) == 24
    assert len(adapter.parameters("unet")) + 24 == len(adapter.parameters())


def test_text_encoders_train_and_fuse_as_the_unet_does() -> None:
    def answer(encoder: nn.Module) -> Tensor:
        return encoder(input_ids=torch.tensor([[48, 3, 4, 5, 49, 0]])).last_hidden_state

    encoder = small_text_encoder()
    before = answer(encoder)
    adapter = inject({"text_encoder": encoder}, targets="kohya", rank=2, text_encoder=True)
    assert torch.equal(answer(encoder), before)
    start = adapter.state()
    optimizer = torch.optim.AdamW(adapter.parameters("text_encoder"), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        answer(encoder).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    state = adapter.state()
    assert all(not torch.equal(state[name].down, start[name].down) for name in state)
    assert all(not torch.equal(state[name].up, start[name].up) for name in state)

    fused = small_text_encoder()
    assert fuse({"text_encoder": fused}, state) == 12
    torch.testing.assert_close(answer(fused), answer(encoder), rtol=1e-4, atol=1e-5)


def test_text_encoders_stay_alone_unless_asked_for() -> None:
    components = {"unet": small_unet(), "text_encoder": small_text_encoder()}
    adapter = inject(components, targets="kohya", rank=2)
    assert all(name.startswith("unet.") for name in adapter.layers)
    assert not any(isinstance(module, LoRALayer) for module in components["text_encoder"].modules())
    assert not any(parameter.requires_grad for parameter in components["text_encoder"].parameters())


def test_convolutions_have_their_own_rank_and_alpha() -> None:
    state = inject(
        {"unet": small_unet()}, targets="kohya_conv", rank=8, alpha=4, conv_rank=2, conv_alpha=None
    ).state()
    ranks = {name: (weights.rank, weights.alpha) for name, weights in state.items()}
    assert ranks["unet.mid_block.resnets.0.conv1"] == (2, 1.0)
    assert ranks["unet.mid_block.resnets.0.time_emb_proj"] == (8, 4.0)
    assert ranks["unet.up_blocks.0.resnets.0.conv_shortcut"] == (8, 4.0)
    assert state["unet.mid_block.resnets.0.conv1"].down.shape == (2, 64, 3, 3)
    assert state["unet.mid_block.resnets.0.conv1"].up.shape == (64, 2, 1, 1)


def test_tensors_sit_on_the_device_of_the_base() -> None:
    unet = UNet(SDXL_LIKE).to("meta")
    adapter = inject({"unet": unet}, targets="kohya_conv", rank=4)
    assert all(parameter.device.type == "meta" for parameter in adapter.parameters())


def test_a_linear_update_fits_a_1x1_convolution_and_the_reverse() -> None:
    conv_unet, linear_unet = small_unet(SD15_LIKE), small_unet()
    weights = LoRAWeights(torch.randn(2, 64), torch.randn(64, 2), alpha=2)
    four = LoRAWeights(weights.down[..., None, None], weights.up[..., None, None], alpha=2)

    linear = apply({"unet": linear_unet}, {"unet.mid_block.attentions.0.proj_in": four})
    convolution = apply({"unet": conv_unet}, {"unet.mid_block.attentions.0.proj_in": weights})

    assert linear.layers["unet.mid_block.attentions.0.proj_in"].down.shape == (2, 64)
    assert convolution.layers["unet.mid_block.attentions.0.proj_in"].down.shape == (2, 64, 1, 1)


def test_an_adapter_of_another_model_is_refused_by_name_and_leaves_no_trace() -> None:
    unet = small_unet()
    state = trained(inject({"unet": small_unet()}, targets="attention", rank=4))
    before = {name: id(module) for name, module in unet.named_modules()}
    weights = next(iter(state.values()))

    with pytest.raises(UserError, match=r"1 of the adapter's \d+ modules .*down_blocks\.7"):
        apply({"unet": unet}, {**state, "unet.down_blocks.7.to_q": weights})
    with pytest.raises(UserError, match="text_encoder"):
        fuse({"unet": unet}, {**state, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": weights})
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    with pytest.raises(UserError, match=r"attn2\.to_k is \(4, 768\).*needs \(4, 24\)"):
        apply({"unet": unet}, {**state, name: LoRAWeights(torch.zeros(4, 768), torch.zeros(64, 4), 4.0)})

    assert before == {name: id(module) for name, module in unet.named_modules()}


def test_loading_another_shape_of_adapter_is_refused() -> None:
    adapter = inject({"unet": small_unet()}, targets="attention", rank=4)
    with pytest.raises(UserError, match="rank 8"):
        adapter.load(inject({"unet": small_unet()}, targets="attention", rank=8).state())
    with pytest.raises(UserError, match=r"to_out\.0 is only in the file"):
        adapter.load(inject({"unet": small_unet()}, targets="attention_out", rank=4).state())


def test_an_applied_adapter_does_not_train() -> None:
    unet = small_unet()
    adapter = apply({"unet": unet}, inject({"unet": small_unet()}, targets="attention", rank=4).state())
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert adapter.num_modules == 24
