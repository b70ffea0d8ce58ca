"""Settings files as people write them for kohya's trainer: both families, and what a window writes."""

LUCA = """\
# one character on SD 1.5
[model_arguments]
pretrained_model_name_or_path = "/models/v1-5-pruned-emaonly.safetensors"
v2 = false
v_parameterization = false

[dataset_arguments]
train_data_dir = "/data/luca/train"
resolution = "512,512"
caption_extension = ".txt"
caption_prefix = "a 3d animated character, luca,"
flip_aug = false
color_aug = false
cache_latents = true
cache_latents_to_disk = true

[training_arguments]
output_dir = "/output/luca"
output_name = "luca_final_v1_pure"
save_model_as = "safetensors"
save_precision = "fp16"
save_every_n_epochs = 2
max_train_epochs = 20
train_batch_size = 4
gradient_accumulation_steps = 2
gradient_checkpointing = true
mixed_precision = "fp16"
xformers = true
seed = 42
max_data_loader_n_workers = 4
persistent_data_loader_workers = true
sample_every_n_epochs = 2
sample_prompts = "/data/luca/prompts.txt"
sample_sampler = "euler_a"

[optimizer_arguments]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.01", "betas=0.9,0.99"]
learning_rate = 8e-5
unet_lr = 8e-5
text_encoder_lr = 4e-5
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 2
lr_warmup_steps = 100
max_grad_norm = 1.0

[network_arguments]
network_module = "networks.lora"
network_dim = 64
network_alpha = 32
network_dropout = 0.1

[advanced_arguments]
min_snr_gamma = 5
noise_offset = 0.05
clip_skip = 2
"""

SDXL_16GB = """\
pretrained_model_name_or_path = "stabilityai/stable-diffusion-xl-base-1.0"
vae = "madebyollin/sdxl-vae-fp16-fix"
train_data_dir = "/data/luca/train"
output_dir = "/output/luca_sdxl"
output_name = "luca_sdxl"
resolution = "1024,1024"
enable_bucket = true
min_bucket_reso = 640
max_bucket_reso = 1536
bucket_reso_steps = 64
bucket_no_upscale = true
network_module = "networks.lora"
network_dim = 128
network_alpha = 96
network_args = []
learning_rate = 1e-4
unet_lr = 1e-4
text_encoder_lr = [6e-5, 6e-5]
train_text_encoder = true
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.01"]
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 3
lr_warmup_steps = 100
train_batch_size = 1
gradient_accumulation_steps = 8
gradient_checkpointing = true
mixed_precision = "bf16"
full_bf16 = true
no_half_vae = true
cache_latents = true
cache_latents_to_disk = true
vae_batch_size = 1
max_train_epochs = 20
max_token_length = 225
min_snr_gamma = 5
noise_offset = 0.05
save_every_n_epochs = 2
save_model_as = "safetensors"
save_precision = "bf16"
sample_every_n_epochs = 2
sample_prompts = ""
caption_extension = ".txt"
sdpa = true
seed = 1234
"""

DATA_SETS = """\
[general]
caption_extension = ".txt"

[[datasets]]
resolution = 768
batch_size = 3

  [[datasets.subsets]]
  image_dir = "/data/mia"
  num_repeats = 7
  caption_prefix = "mia,"
"""
