"""What a file tells of its training: every key of kohya's, nothing of the machine, nothing without end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brushwork.config.schema import LossConfig
from brushwork.lora.files import convert_adapter, write_adapter
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.metadata import MAX_VALUE, Folder, TrainingFacts, last_part, tag_frequency, training_metadata
from brushwork.models.spec import SDXL
from brushwork.tensor_file import read_tensors

FACTS = TrainingFacts(
    name="corgi",
    family="sdxl",
    resolution=(1024, 1024),
    rank=16,
    alpha=8.0,
    learning_rate=1e-4,
    started_at=1_700_000_000.25,
    finished_at=1_700_003_600.75,
    steps=800,
    epoch=4,
    num_train_images=40,
    num_batches_per_epoch=200,
    num_epochs=10,
    max_steps=2000,
    base="/home/lovelace/models/sd_xl_base_1.0.safetensors",
    base_hash="31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
    vae="C:\\models\\fixed_vae.safetensors",
    vae_hash="63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e",
    folders=(
        Folder("/home/lovelace/pictures/5_corgi", 3, 5, ("a corgi, on grass", "a corgi, in snow", "a corgi")),
        Folder("/home/lovelace/pictures/toys", 25, 1, ("a toy",) * 25),
    ),
    trigger="sks corgi",
)

KOHYA_KEYS = """
    session_id training_started_at output_name learning_rate text_encoder_lr unet_lr num_train_images
    num_validation_images num_reg_images num_batches_per_epoch num_epochs gradient_checkpointing
    gradient_accumulation_steps max_train_steps lr_warmup_steps lr_scheduler network_module network_dim
    network_alpha network_dropout mixed_precision full_fp16 v2 base_model_version clip_skip max_token_length
    cache_latents seed lowram noise_offset multires_noise_iterations multires_noise_discount
    adaptive_noise_scale zero_terminal_snr training_comment sd_scripts_commit_hash optimizer max_grad_norm
    caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate face_crop_aug_range
    prior_loss_weight min_snr_gamma scale_weight_norms ip_noise_gamma debiased_estimation
    noise_offset_random_strength ip_noise_gamma_random_strength loss_type huber_schedule huber_c fp8_base
    datasets tag_frequency dataset_dirs reg_dataset_dirs bucket_info resolution batch_size_per_device
    total_batch_size enable_bucket min_bucket_reso max_bucket_reso shuffle_caption keep_tokens sd_model_name
    sd_model_hash new_sd_model_hash vae_name vae_hash new_vae_hash training_finished_at steps epoch
"""


def test_every_key_of_kohyas_trainer_is_there_as_a_string() -> None:
    metadata = training_metadata(FACTS)
    assert {f"ss_{key}" for key in KOHYA_KEYS.split()} <= set(metadata)
    assert all(isinstance(value, str) for value in metadata.values())


def test_values_are_written_as_kohya_writes_them() -> None:
    metadata = training_metadata(FACTS)
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["ss_network_module"] == "networks.lora"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("16", "8.0")
    assert (metadata["ss_v2"], metadata["ss_min_snr_gamma"], metadata["ss_cache_latents"]) == (
        "False",
        "None",
        "True",
    )
    assert (metadata["ss_mixed_precision"], metadata["ss_resolution"]) == ("no", "(1024, 1024)")
    assert metadata["ss_sd_model_name"] == "sd_xl_base_1.0.safetensors"
    assert metadata["ss_sd_model_hash"] == "31e35c80"
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "5_corgi": {"n_repeats": 5, "img_count": 3},
        "toys": {"n_repeats": 1, "img_count": 25},
    }
    assert json.loads(metadata["ss_tag_frequency"]) == {
        "5_corgi": {"a corgi": 3, "in snow": 1, "on grass": 1},
        "toys": {"a toy": 25},
    }
    assert "ss_network_args" not in metadata
    told = training_metadata(replace(FACTS, network_args={"conv_dim": "8"}))["ss_network_args"]
    assert json.loads(told) == {"conv_dim": "8"}


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture", "implementation"),
    [
        ("sd15", "epsilon", "sd_v1", "stable-diffusion-v1/lora", "diffusers"),
        ("sd15", "v", "sd_v1_v", "stable-diffusion-v1/lora", "diffusers"),
        (
            "sdxl", "v", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora",
            "https://github.com/Stability-AI/generative-models",
        ),
    ],
)  # fmt: skip
def test_the_family_is_told_in_both_vocabularies(
    family: str, prediction: str, version: str, architecture: str, implementation: str
) -> None:
    metadata = training_metadata(replace(FACTS, family=family, prediction=prediction))
    assert metadata["ss_base_model_version"] == version
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["modelspec.implementation"] == implementation
    assert metadata["modelspec.prediction_type"] == prediction


def test_the_loss_is_told_in_kohyas_words() -> None:
    plain = training_metadata(FACTS)
    assert (plain["ss_loss_type"], plain["ss_huber_c"], plain["ss_noise_offset"]) == ("l2", "None", "None")
    assert "modelspec.timestep_range" not in plain
    loss = LossConfig(
        kind="smooth_l1",
        huber_c=0.2,
        huber_schedule="exponential",
        debiased=True,
        noise_offset=0.05,
        noise_offset_random=True,
        adaptive_noise_scale=0.01,
        multires_iterations=6,
        input_perturbation=0.1,
        input_perturbation_random=True,
        min_timestep=100,
    )
    told = training_metadata(replace(FACTS, loss=loss))
    expected = {
        "loss_type": "smooth_l1",
        "huber_schedule": "exponential",
        "huber_c": "0.2",
        "debiased_estimation": "True",
        "min_snr_gamma": "None",
        "noise_offset": "0.05",
        "noise_offset_random_strength": "True",
        "adaptive_noise_scale": "0.01",
        "multires_noise_iterations": "6",
        "multires_noise_discount": "0.3",
        "ip_noise_gamma": "0.1",
        "ip_noise_gamma_random_strength": "True",
    }
    assert {key: told[f"ss_{key}"] for key in expected} == expected
    assert told["modelspec.timestep_range"] == "100,1000"


def test_modelspec_says_what_programs_show() -> None:
    metadata = training_metadata(FACTS)
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.title"] == "corgi"
    assert metadata["modelspec.resolution"] == "1024x1024"
    assert metadata["modelspec.trigger_phrase"] == "sks corgi"
    assert metadata["modelspec.date"] == "2023-11-14T23:13:20"
    assert "modelspec.author" not in metadata


def test_no_path_of_the_machine_is_told() -> None:
    text = json.dumps(training_metadata(FACTS))
    assert "lovelace" not in text
    assert "models\\\\" not in text
    assert last_part("/home/lovelace/models/base.safetensors") == "base.safetensors"
    assert last_part("models/base.safetensors") == "base.safetensors"
    assert last_part("/home/lovelace/data/") == "data"
    assert last_part("./data") == "data"
    assert last_part("D:\\data\\10_corgi") == "10_corgi"
    assert last_part("stabilityai/stable-diffusion-xl-base-1.0") == "stabilityai/stable-diffusion-xl-base-1.0"
    assert last_part("bundled") == "bundled"


def test_values_that_grow_with_the_data_are_capped_and_keep_the_most_frequent_tags() -> None:
    folders = tuple(
        Folder(f"folder {number}", 1000, 1, ("corgi", *(f"corgi, tag {tag} of {number}" for tag in range(20_000))))
        for number in range(3)
    )
    many = tuple(Folder(f"folder {number}", 1) for number in range(100_000))

    frequency = tag_frequency(folders)
    metadata = training_metadata(replace(FACTS, folders=folders))

    assert all(next(iter(tags.items())) == ("corgi", 20_001) for tags in frequency.values())
    assert all(len(tags) > 100 for tags in frequency.values())
    assert MAX_VALUE / 2 < len(metadata["ss_tag_frequency"]) <= MAX_VALUE + 200
    assert all(len(value) <= MAX_VALUE + 200 for value in training_metadata(replace(FACTS, folders=many)).values())
    json.loads(training_metadata(replace(FACTS, folders=many))["ss_tag_frequency"])


def test_a_file_carries_the_metadata_and_the_least_that_others_need(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    state = {name: LoRAWeights(torch.ones(4, 1280), torch.ones(1280, 4), alpha=2.0)}
    facts = replace(FACTS, rank=4, alpha=2.0)

    write_adapter(tmp_path / "a.safetensors", state, spec=SDXL, metadata=training_metadata(facts))
    write_adapter(tmp_path / "b.safetensors", state, spec=SDXL)

    told, least = (read_tensors(tmp_path / name)[1] for name in ("a.safetensors", "b.safetensors"))
    assert training_metadata(facts).items() <= told.items()
    assert set(told) - set(training_metadata(facts)) == {
        "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"
    }  # fmt: skip
    assert {key: value for key, value in least.items() if key.startswith("ss_")} == {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
    }


def test_rank_and_alpha_are_told_as_they_are_after_a_conversion(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    state = {name: LoRAWeights(torch.ones(16, 1280), torch.ones(1280, 16), alpha=8.0)}
    write_adapter(tmp_path / "a.safetensors", state, spec=SDXL, metadata=training_metadata(FACTS))
    convert_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", layout="diffusers")
    convert_adapter(tmp_path / "b.safetensors", tmp_path / "c.safetensors", layout="kohya")

    alphas = [read_tensors(tmp_path / f"{letter}.safetensors")[1]["ss_network_alpha"] for letter in "abc"]

    assert alphas == ["8.0", "16.0", "16.0"]


def test_the_rank_of_the_settings_is_told_where_convolutions_have_another(tmp_path: Path) -> None:
    state = {
        "unet.mid_block.attentions.0.proj_in": LoRAWeights(torch.ones(16, 1280), torch.ones(1280, 16), 8.0),
        "unet.mid_block.resnets.0.conv1": LoRAWeights(torch.ones(4, 1280, 3, 3), torch.ones(1280, 4, 1, 1), 2.0),
    }
    write_adapter(tmp_path / "a.safetensors", state, spec=SDXL, metadata=training_metadata(FACTS))
    metadata = read_tensors(tmp_path / "a.safetensors")[1]
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("16", "8.0")
