"""The timm plugin of torch-dag. It is used as soon as it is installed."""
