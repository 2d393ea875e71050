"""The U-Net, its weights and model card, and how it is run on a device."""
