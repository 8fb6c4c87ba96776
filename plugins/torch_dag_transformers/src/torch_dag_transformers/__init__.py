"""The plugin of torch-dag for Hugging Face's transformers. It is used as soon as it is installed."""
