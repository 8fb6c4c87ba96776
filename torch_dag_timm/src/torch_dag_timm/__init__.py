"""The timm plugin of torch-dag; installing it is enough."""
