"""The networks: UNet, text encoders, VAE, and how their weights are read."""
