"""The mathematics of diffusion: schedules, predictions, weights and samplers; no network."""
